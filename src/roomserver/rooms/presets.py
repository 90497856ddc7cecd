"""Presets over WebSocket: mixes kept under a name, saved and loaded without holding the loop up.

The store is asked in tasks. What one connection wants is done in its order, one after the other; so
much of it may wait, and nothing is answered to a connection that is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque

from roomserver.protocol import client, server
from roomserver.protocol.codec import encode
from roomserver.protocol.codes import ErrorCode
from roomserver.rooms.connection import Connection
from roomserver.rooms.mixes import put_in_force
from roomserver.rooms.ports import MediaVerbs
from roomserver.store.database import DatabaseAwayError
from roomserver.store.presets import Owner, PresetStore, TooManyPresetsError

MOST_WAITING = 8  # of one connection


class Presets:
    """The presets of all listeners. Used in the event loop's thread."""

    def __init__(self, store: PresetStore, media: MediaVerbs) -> None:
        self._store = store
        self._media = media
        self._waiting: dict[int, deque[client.PresetMessage]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}

    def handle(self, sender: Connection, message: client.PresetMessage) -> ErrorCode | None:
        """Takes a request of a registered listener, or says why not."""
        waiting = self._waiting.setdefault(sender.id, deque())
        if len(waiting) >= MOST_WAITING:
            return ErrorCode.RATE_LIMITED
        waiting.append(message)
        if sender.id not in self._running:
            self._running[sender.id] = asyncio.ensure_future(self._serve(sender, waiting))
        return None

    def forget(self, connection: int) -> None:
        """The connection is gone."""
        self._waiting.pop(connection, None)
        if (task := self._running.pop(connection, None)) is not None:
            task.cancel()

    async def _serve(self, sender: Connection, waiting: deque[client.PresetMessage]) -> None:
        while waiting:
            message = waiting.popleft()
            try:
                reply = await self._answer(sender, message)
            except TooManyPresetsError as error:
                reply = server.Error(ErrorCode.TOO_MANY_PRESETS, str(error))
            except DatabaseAwayError:
                reply = server.Error(ErrorCode.DATABASE_AWAY, "presets are away; try again")
            if reply is not None:
                self._media.send(sender.id, encode(reply))
        if self._waiting.get(sender.id) is waiting:
            del self._waiting[sender.id]
            del self._running[sender.id]

    async def _answer(
        self, sender: Connection, message: client.PresetMessage
    ) -> server.ServerMessage | None:
        """What is sent for it; None: it was sent with the mix."""
        if sender.token is None or sender.subscription is None:
            return None  # it does not listen any more
        owner = Owner(sender.token.user, sender.token.participant)
        match message:
            case client.SavePreset(name=name):
                await self._store.save(owner, name, sender.subscription.mix)
                return server.PresetSaved(name)
            case client.DeletePreset(name=name):
                if await self._store.delete(owner, name):
                    return server.PresetDeleted(name)
            case client.ListPresets():
                return server.Presets(tuple(await self._store.names(owner)))
            case client.LoadPreset(name=name):
                mix = await self._store.load(owner, name)
                if mix is not None:
                    if sender.subscription is not None and sender.leaving is None:
                        put_in_force(
                            self._media, sender, mix, reply=server.Preset(name=name, mix=mix)
                        )
                    return None
        return server.Error(ErrorCode.PRESET_NOT_FOUND, "there is no preset of that name")

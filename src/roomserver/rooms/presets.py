"""Presets over WebSocket: mixes kept under a name, saved and loaded without holding the loop up.

The store is asked in tasks. What one connection wants is done in its order, one after the other; so
much of it may wait, and nothing is answered to a connection that is gone. A few connections are
served at once: a hall that comes back after a restart would take all that the database has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

import structlog

from roomserver.protocol import client, server
from roomserver.protocol.codec import encode
from roomserver.protocol.codes import ErrorCode
from roomserver.protocol.server import MixState
from roomserver.rooms.connection import Connection
from roomserver.rooms.mixes import put_in_force
from roomserver.rooms.ports import MediaVerbs
from roomserver.store.database import DatabaseAwayError
from roomserver.store.presets import Owner, PresetStore, TooManyPresetsError

MOST_WAITING = 8  # of one connection
AT_ONCE = 4

log = structlog.stdlib.get_logger("roomserver.rooms")


class _Request(NamedTuple):
    """What was asked, by whom, and the mix that was in force then."""

    message: client.PresetMessage
    owner: Owner
    mix: MixState


class Presets:
    """The presets of all listeners. Used in the event loop's thread."""

    def __init__(self, store: PresetStore, media: MediaVerbs) -> None:
        self._store = store
        self._media = media
        self._waiting: dict[int, deque[_Request]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)

    def handle(self, sender: Connection, message: client.PresetMessage) -> ErrorCode | None:
        """Takes a request of a registered listener, or says why not."""
        assert sender.token is not None
        assert sender.subscription is not None
        waiting = self._waiting.setdefault(sender.id, deque())
        if len(waiting) >= MOST_WAITING:
            return ErrorCode.RATE_LIMITED
        owner = Owner(sender.token.user, sender.token.participant)
        waiting.append(_Request(message, owner, sender.subscription.mix))
        if sender.id not in self._running:
            self._running[sender.id] = asyncio.ensure_future(self._serve(sender, waiting))
        return None

    def forget(self, connection: int) -> None:
        """The connection is gone."""
        self._waiting.pop(connection, None)
        if (task := self._running.pop(connection, None)) is not None:
            task.cancel()

    async def _serve(self, sender: Connection, waiting: deque[_Request]) -> None:
        while waiting:
            request = waiting.popleft()
            try:
                async with self._at_once:
                    reply = await self._answer(sender, request)
            except TooManyPresetsError as error:
                reply = server.Error(ErrorCode.TOO_MANY_PRESETS, str(error))
            except DatabaseAwayError:
                reply = server.Error(ErrorCode.DATABASE_AWAY, "presets are away; try again")
            except Exception:
                log.exception("preset_request_failed", client=sender.client_id)
                reply = server.Error(ErrorCode.INTERNAL, "something went wrong here")
            if reply is not None:
                self._media.send(sender.id, encode(reply))
        if self._waiting.get(sender.id) is waiting:
            del self._waiting[sender.id]
            del self._running[sender.id]

    async def _answer(self, sender: Connection, request: _Request) -> server.ServerMessage | None:
        """What is sent for it; None: it was sent with the mix, or nobody listens any more."""
        owner = request.owner
        match request.message:
            case client.SavePreset(name=name):
                await self._store.save(owner, name, request.mix)
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

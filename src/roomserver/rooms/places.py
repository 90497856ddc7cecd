"""How many connections there may be: in all, of an address before they register, with one token."""

from __future__ import annotations

from collections import Counter

from roomserver.auth.tokens import RoomToken
from roomserver.protocol.codes import Role
from roomserver.rooms.connection import Connection

# Connections beyond the most there may be, in which sources come when listeners take all others.
KEPT_FOR_SOURCES = 16


class Places:
    """Counts connections. One is unregistered until it has registered for the first time."""

    def __init__(
        self, *, max_connections: int, max_unregistered: int, max_per_participant: int
    ) -> None:
        """max_connections, max_per_participant: in all, and listeners with one token; 0: any.

        max_unregistered: of one address.
        """
        self._max_connections = max_connections
        self._max_unregistered = max_unregistered
        self._max_per_participant = max_per_participant
        self._connections = 0
        self._registered = 0
        self._unregistered: Counter[str] = Counter()  # by limit key
        self._listening: Counter[str] = Counter()  # by participant

    @property
    def are_full(self) -> bool:
        """Whether another connection is one too many, even for a source."""
        return 0 < self._max_connections <= self._connections - KEPT_FOR_SOURCES

    def may_connect(self, limit_key: str) -> bool:
        """Whether the address has not too many connections that did not register yet."""
        return self._unregistered[limit_key] < self._max_unregistered

    def why_not_listen(self, connection: Connection, token: RoomToken) -> str | None:
        """What forbids a connection to listen, if anything does.

        Of all connections only registered ones count here: where many come at once, as after a
        restart, none is refused for those that are refused themselves.
        """
        others = self._registered - (connection.token is not None)
        if 0 < self._max_connections <= others:
            return "the server has no room for listeners"
        if 0 < self._max_per_participant <= self._listening[token.participant]:
            return "this token has as many connections as max_connections_per_participant allows"
        return None

    def connected(self, limit_key: str) -> None:
        """One more, from there."""
        self._connections += 1
        self._unregistered[limit_key] += 1

    def registers(self, connection: Connection, token: RoomToken, role: Role) -> None:
        """It is about to register."""
        if connection.token is None:
            self._registered += 1
            _count_down(self._unregistered, connection.limit_key)
        if role is Role.LISTENER:
            self._listening[token.participant] += 1

    def left(self, connection: Connection) -> None:
        """It has closed."""
        self._connections -= 1
        if connection.token is None:
            _count_down(self._unregistered, connection.limit_key)
            return
        self._registered -= 1
        if connection.role is Role.LISTENER:
            _count_down(self._listening, connection.token.participant)


def _count_down(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]

"""Access tokens (who somebody is) and room tokens (what somebody may do in one room).

JSON Web Tokens signed with HS256, the only algorithm ever accepted. The audience keeps the two
kinds apart: neither passes for the other.
"""

from __future__ import annotations

import base64
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OctKey
from msgspec import structs

from roomserver.ids import new_id
from roomserver.protocol.codes import Role

ALGORITHMS = ["HS256"]
ISSUER = "roomserver"
ACCESS_AUDIENCE = "access"
ROOM_AUDIENCE = "room"
INVITE_AUDIENCE = "invite"
REMEMBERED = 1000  # tokens that were just given out


class TokenError(Exception):
    """A token that cannot be taken; the message never repeats the token."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


@dataclass(frozen=True, slots=True)
class AccessToken:
    """Who calls the REST interface."""

    user: str
    expires: int  # Unix seconds
    version: int = 1  # the account's `session_version` when it was issued


class RoomToken(msgspec.Struct, frozen=True, gc=False):
    """What its bearer may do in one room.

    `participant` survives reconnects and renewals: mixes, statistics and bans hang on it.
    """

    room: str
    role: Role
    participant: str
    user: str | None
    nickname: str | None
    expires: int  # Unix seconds
    version: int = 1  # the room's `token_version` when it was issued


@dataclass(frozen=True, slots=True)
class InviteToken:
    """Leave to come into a room; whether it still holds the store of invites knows."""

    id: str
    room: str
    secret: str = field(repr=False)
    expires: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class OldKey:
    """A key that signs no more. `until`: tokens of it are taken until then, in Unix seconds."""

    key: bytes = field(repr=False)
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The key that signs, and those before it."""

    signing: bytes = field(repr=False)
    old: tuple[OldKey, ...] = ()


class _Claims(msgspec.Struct):
    iss: str
    sub: str
    aud: str
    exp: int
    ver: int = 1


class _RoomClaims(_Claims, kw_only=True):
    room: str
    role: Role
    user: str | None = None
    nick: str | None = None


class _InviteClaims(_Claims, kw_only=True):
    room: str
    key: str


C = TypeVar("C", bound=_Claims)


class Tokens:
    """Issues and reads tokens, in one thread."""

    def __init__(
        self,
        keys: Keys,
        *,
        access_s: float,
        room_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._access_s = access_s
        self._room_s = room_s
        self._now = now
        self.use(keys)

    def use(self, keys: Keys) -> None:
        """Signs with another key from now on."""
        self._given = keys
        # Most tokens come back within a second. Who brings the very text that was given out needs
        # no signature: it takes longer than all else that a registration does.
        self._just_issued: dict[str, RoomToken] = {}
        signing = _named(keys.signing)
        header = {"alg": ALGORITHMS[0], "typ": "JWT", "kid": signing.kid}
        self._header = _base64url(msgspec.json.encode(header))
        old = [old for old in keys.old if old.until is None or old.until > self._now()]
        self._keys = {key.kid: key for key in (*(_named(o.key) for o in old), signing)}
        self._until = min((old.until for old in old if old.until is not None), default=math.inf)

    @property
    def room_s(self) -> float:
        """Life of a room token in seconds."""
        return self._room_s

    def issue_access(self, user: str, *, version: int = 1) -> str:
        """A token that says who its bearer is."""
        claims: dict[str, object] = {"aud": ACCESS_AUDIENCE, "sub": user, "ver": version}
        return self._encode(claims, self._expiry(self._access_s))

    def read_access(self, text: str) -> AccessToken:
        """Raises TokenError."""
        claims = self._decode(text, ACCESS_AUDIENCE, _Claims)
        return AccessToken(claims.sub, claims.exp, claims.ver)

    def issue_room(
        self,
        room: str,
        role: Role,
        *,
        version: int = 1,
        participant: str | None = None,
        user: str | None = None,
        nickname: str | None = None,
    ) -> tuple[str, RoomToken]:
        """A new token for `room`, and what it says."""
        text, token = self._sign_room(
            RoomToken(
                room=room,
                role=role,
                participant=participant or new_id(),
                user=user,
                nickname=nickname or None,
                expires=self._expiry(self._room_s),
                version=version,
            )
        )
        if len(self._just_issued) >= REMEMBERED:
            del self._just_issued[next(iter(self._just_issued))]
        self._just_issued[text] = token
        return text, token

    def renew_room(self, token: RoomToken) -> tuple[str, RoomToken]:
        """The same rights of the same participant, for another while."""
        return self._sign_room(structs.replace(token, expires=self._expiry(self._room_s)))

    def expires_within(self, token: RoomToken, seconds: float) -> bool:
        """Whether a token is good for no longer than that, by the clock that judges it."""
        return token.expires <= self._now() + seconds

    def read_room(self, text: str) -> RoomToken:
        """Raises TokenError."""
        known = self._just_issued.pop(text, None)
        if known is not None and not self.expires_within(known, 0):
            return known
        claims = self._decode(text, ROOM_AUDIENCE, _RoomClaims)
        return RoomToken(
            claims.room,
            claims.role,
            claims.sub,
            claims.user,
            claims.nick,
            claims.exp,
            claims.ver,
        )

    def sign_invite(self, token: InviteToken) -> str:
        """What stands in the link of an invite."""
        claims: dict[str, object] = {
            "aud": INVITE_AUDIENCE,
            "sub": token.id,
            "room": token.room,
            "key": token.secret,
        }
        return self._encode(claims, token.expires)

    def read_invite(self, text: str) -> InviteToken:
        """Raises TokenError."""
        claims = self._decode(text, INVITE_AUDIENCE, _InviteClaims)
        return InviteToken(claims.sub, claims.room, claims.key, claims.exp)

    def _sign_room(self, token: RoomToken) -> tuple[str, RoomToken]:
        claims: dict[str, object] = {
            "aud": ROOM_AUDIENCE,
            "sub": token.participant,
            "room": token.room,
            "role": token.role.value,
            "ver": token.version,
        }
        if token.user is not None:
            claims["user"] = token.user
        if token.nickname is not None:
            claims["nick"] = token.nickname
        return self._encode(claims, token.expires), token

    def _expiry(self, life_s: float) -> int:
        return int(self._now() + life_s)

    def _encode(self, claims: dict[str, object], expires: int) -> str:
        claims |= {"iss": ISSUER, "iat": int(self._now()), "exp": expires}
        # joserfc, which reads tokens, would look at key and header anew for each: a listener who
        # comes in would wait longer for that than for all else.
        signed = self._header + b"." + _base64url(msgspec.json.encode(claims))
        mac = hmac.digest(self._given.signing, signed, "sha256")
        return (signed + b"." + _base64url(mac)).decode("ascii")

    def _key_of(self, token: GuestProtocol) -> OctKey:
        return self._keys[token.headers()["kid"]]

    def _decode(self, text: str, audience: str, kind: type[C]) -> C:
        if self._until <= self._now():
            self.use(self._given)  # without the old keys whose time is over
        try:
            signed = jws.deserialize_compact(text, self._key_of, algorithms=ALGORITHMS)
            claims = msgspec.json.decode(signed.payload, type=kind)
        except (JoseError, KeyError, ValueError, TypeError, RecursionError):
            # msgspec's and json's errors are ValueErrors; what exactly was wrong helps forgers.
            raise TokenError("the token is not valid") from None
        if claims.iss != ISSUER or claims.aud != audience:
            raise TokenError("the token is not valid")
        if claims.exp <= self._now():
            raise TokenError("the token has expired", expired=True)
        return claims


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _named(secret: bytes) -> OctKey:
    """The key with the name that tokens of it carry, which leads nobody back to it."""
    name = hmac.digest(secret, b"key id", "sha256")[:6].hex()
    return OctKey.import_key(secret, {"kid": name})

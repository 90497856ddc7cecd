"""Tokens: who may do what, and that nothing else passes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from roomserver.auth.tokens import REMEMBERED, Keys, OldKey, TokenError, Tokens
from roomserver.protocol.codes import Role

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
KEY_ID = hmac.digest(SECRET, b"key id", "sha256")[:6].hex()
HEADER = {"alg": "HS256", "typ": "JWT", "kid": KEY_ID}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def make(secret: bytes = SECRET, clock: Clock | None = None) -> Tokens:
    return Tokens(Keys(secret), access_s=900, room_s=3600, now=clock or Clock())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(
    header: dict[str, Any], claims: dict[str, Any], secret: bytes | None, digest: str = "sha256"
) -> str:
    texts = (json.dumps(part, separators=(",", ":")) for part in (header, claims))
    body = ".".join(b64(text.encode()) for text in texts)
    signature = hmac.digest(secret, body.encode(), digest) if secret is not None else b""
    return f"{body}.{b64(signature)}"


GOOD: dict[str, Any] = {
    "iss": "roomserver",
    "aud": "room",
    "sub": "participant",
    "exp": int(NOW) + 100,
    "iat": int(NOW),
    "room": "room",
    "role": "listener",
}


def test_a_room_token_says_what_it_was_made_with() -> None:
    tokens = make()
    text, made = tokens.issue_room("room", Role.BROADCASTER, user="u", nickname="Ann")
    read = tokens.read_room(text)
    assert [read, tokens.read_room(text), make().read_room(text)] == [made] * 3
    assert (read.room, read.role, read.user, read.nickname) == ("room", "broadcaster", "u", "Ann")
    assert read.expires == NOW + 3600


def test_a_renewed_token_keeps_the_participant() -> None:
    clock = Clock()
    tokens = make(clock=clock)
    _, first = tokens.issue_room("room", Role.LISTENER)
    clock.now += 1000
    text, second = tokens.renew_room(first)
    assert tokens.read_room(text) == second
    assert second.participant == first.participant
    assert second.expires == first.expires + 1000


def test_a_token_expires() -> None:
    clock = Clock()
    tokens = make(clock=clock)
    access = tokens.issue_access("user")
    room, _ = tokens.issue_room("room", Role.LISTENER)
    clock.now += 899
    assert tokens.read_access(access).user == "user"
    clock.now += 2
    with pytest.raises(TokenError) as caught:
        tokens.read_access(access)
    assert caught.value.expired
    clock.now += 2701
    with pytest.raises(TokenError) as caught:
        tokens.read_room(room)
    assert caught.value.expired


def test_a_token_that_was_just_given_out_is_held_to_time_and_key_like_any_other() -> None:
    clock = Clock()
    tokens = make(clock=clock)
    late, _ = tokens.issue_room("room", Role.LISTENER)
    clock.now += 3600
    with pytest.raises(TokenError) as caught:
        tokens.read_room(late)
    assert caught.value.expired
    foreign, _ = tokens.issue_room("room", Role.LISTENER)
    tokens.use(Keys(b"another secret of thirty-two bytes"))
    with pytest.raises(TokenError):
        tokens.read_room(foreign)


def test_more_tokens_than_are_remembered_hold() -> None:
    tokens = make()
    issued = [tokens.issue_room("room", Role.LISTENER) for _ in range(REMEMBERED + 10)]
    assert all(tokens.read_room(text) == made for text, made in issued)


def test_the_forger_of_these_tests_knows_how() -> None:
    assert make().read_room(forge(HEADER, GOOD, SECRET)).participant == "participant"


def test_others_read_our_tokens_as_the_standard_says() -> None:
    text, made = make().issue_room("room", Role.LISTENER, nickname="Ann")
    token = jwt.decode(text, OctKey.import_key(SECRET), algorithms=["HS256"])
    assert token.header == HEADER
    expected = {"iss": "roomserver", "aud": "room", "sub": made.participant, "nick": "Ann"}
    assert expected.items() <= token.claims.items()


@pytest.mark.parametrize(
    "text",
    [
        forge(HEADER | {"alg": "none"}, GOOD, None),
        forge(HEADER | {"alg": "None"}, GOOD, None),
        forge(HEADER, GOOD, None),
        forge(HEADER, GOOD, b"another secret of thirty-two bytes"),
        forge(HEADER | {"alg": "HS512"}, GOOD, SECRET, "sha512"),
        forge(HEADER, GOOD | {"aud": "access"}, SECRET),
        forge(HEADER, GOOD | {"aud": ["room", "access"]}, SECRET),
        forge(HEADER, GOOD | {"iss": "somebody"}, SECRET),
        forge(HEADER, GOOD | {"role": "admin"}, SECRET),
        forge(HEADER, GOOD | {"exp": "tomorrow"}, SECRET),
        forge(HEADER, GOOD | {"room": None}, SECRET),
        forge(HEADER, {k: v for k, v in GOOD.items() if k != "exp"}, SECRET),
        forge(HEADER, {k: v for k, v in GOOD.items() if k != "aud"}, SECRET),
        forge(HEADER | {"crit": ["x"], "x": 1}, GOOD, SECRET),
        forge({"alg": "HS256"}, GOOD, SECRET),
        forge({"alg": "HS256", "typ": "JWT"}, GOOD, SECRET),
        forge(HEADER | {"kid": ["x"]}, GOOD, SECRET),
        forge(HEADER | {"kid": "000000000000"}, GOOD, SECRET),
        forge({"typ": "JWT", "alg": "HS256"}, GOOD, SECRET),
        "",
        "..",
        "a.b.c",
        "ü",
        "a" * 4096,
        ".".join(["e30"] * 5),
    ],
)
def test_a_forged_token_does_not_pass(text: str) -> None:
    with pytest.raises(TokenError) as caught:
        make().read_room(text)
    assert not caught.value.expired
    assert not text or text not in str(caught.value)


def test_a_room_token_does_not_pass_for_an_access_token_nor_the_reverse() -> None:
    tokens = make()
    with pytest.raises(TokenError):
        tokens.read_access(tokens.issue_room("room", Role.BROADCASTER, user="u")[0])
    with pytest.raises(TokenError):
        tokens.read_room(tokens.issue_access("u"))


def test_a_changed_byte_anywhere_does_not_pass() -> None:
    tokens = make()
    text, _ = tokens.issue_room("room", Role.LISTENER)
    for i, old in enumerate(text):
        new = "A" if old != "A" else "B"
        with pytest.raises(TokenError):
            tokens.read_room(text[:i] + new + text[i + 1 :])


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_token_or_an_error(text: str) -> None:
    with pytest.raises(TokenError):
        make().read_room(text)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "alg"]), st.none() | st.integers() | st.text()))
def test_any_signed_claims_are_a_token_or_an_error(claims: dict[str, Any]) -> None:
    with contextlib.suppress(TokenError):
        make().read_room(forge(HEADER, GOOD | claims, SECRET))


def test_the_secret_is_not_in_the_token() -> None:
    text, _ = make().issue_room("room", Role.LISTENER)
    assert SECRET not in text.encode()
    assert hashlib.sha256(SECRET).hexdigest() not in text


def test_a_token_of_the_key_before_holds_until_its_time_is_over() -> None:
    clock = Clock()
    old, new = b"o" * 32, b"n" * 32
    tokens = make(old, clock)
    before, _ = tokens.issue_room("room", Role.LISTENER)
    tokens.use(Keys(new, (OldKey(old, NOW + 3600),)))
    after, _ = tokens.issue_room("room", Role.LISTENER)
    assert tokens.read_room(before).room == tokens.read_room(after).room == "room"
    assert make(new, clock).read_room(after)
    for reader, text in ((make(new, clock), before), (make(old, clock), after)):
        with pytest.raises(TokenError):
            reader.read_room(text)
    tokens.use(Keys(new, (OldKey(old, NOW + 1700), OldKey(b"p" * 32, NOW + 1800))))
    clock.now += 1699
    assert tokens.read_room(before)
    clock.now += 1
    with pytest.raises(TokenError) as caught:
        tokens.read_room(before)
    assert not caught.value.expired
    assert tokens.read_room(after)


def test_a_key_is_not_printed() -> None:
    keys = Keys(SECRET, (OldKey(SECRET, 1.0),))
    assert SECRET.decode() not in repr(keys)

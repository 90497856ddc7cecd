"""Whatever the bytes, a handshake is accepted as the standard says or refused in one way only."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaycore import Upgrade, UpgradeRefused, accept_key, parse_upgrade

SECONDS = int(os.environ.get("FUZZ_SECONDS", "3"))
EXAMPLES = 300 * SECONDS  # for each of three tests, at about a thousand a second
pytestmark = pytest.mark.timeout(2 * SECONDS + 120)
thorough = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

VALID = [
    b"GET /ws?x=1 HTTP/1.1",
    b"Host: relay.example",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]


def check_refusal(refused: UpgradeRefused) -> None:
    assert 400 <= refused.status <= 431
    head, _, body = refused.response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % refused.status)
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert b"\n" not in head.replace(b"\r\n", b"")


def judge(request: bytes) -> Upgrade | None:
    """The upgrade, or None if it was refused; any other exception is the test's failure."""
    try:
        upgrade = parse_upgrade(request)
    except UpgradeRefused as refused:
        check_refusal(refused)
        return None
    # What was accepted, found again without the parser under test.
    lines = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert len(lines) + 1 == request.count(b"\r\n")
    assert lines[0] == b"GET " + upgrade.path.encode() + b" " + lines[0][-8:]
    keys = [
        line.partition(b":")[2].strip(b" \t").decode()
        for line in lines[1:]
        if line.lower().startswith(b"sec-websocket-key:")
    ]
    assert len(keys) == 1
    assert len(base64.b64decode(keys[0], validate=True)) == 16
    assert f"Sec-WebSocket-Accept: {accept_key(keys[0])}\r\n".encode() in upgrade.response
    return upgrade


@thorough
@given(st.binary(max_size=300))
def test_any_bytes(request: bytes) -> None:
    assert judge(request + b"\r\n\r\n") is None or request.startswith(b"GET /")


@thorough
@given(st.data())
def test_a_valid_request_with_bytes_changed(data: st.DataObject) -> None:
    request = bytearray(b"\r\n".join(VALID) + b"\r\n\r\n")
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(request) - 1))
        request[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    judge(bytes(request))


ODD_LINES = st.sampled_from(
    [
        b"Host: other.example",
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Upgrade: h2c",
        b"Connection: close",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"Sec-WebSocket-Version: 8",
        b" folded",
        b"no colon",
        b"X-Space : 1",
        b"X-Nul: \0",
        b"X: " + b" " * 2000 + b"\x01",
        b"",
    ]
)


@thorough
@given(
    st.permutations(VALID[1:]),
    st.lists(st.tuples(st.integers(0, 5), ODD_LINES), max_size=3),
    st.sets(st.integers(0, 4), max_size=2),
)
def test_lines_in_any_order_missing_and_added(
    lines: Sequence[bytes], added: list[tuple[int, bytes]], missing: set[int]
) -> None:
    kept = [line for i, line in enumerate(lines) if i not in missing]
    for at, line in added:
        kept.insert(at, line)
    accepted = judge(b"\r\n".join([VALID[0], *kept]) + b"\r\n\r\n")
    if missing:
        assert accepted is None or len(added) > 0
    if not missing and not added:
        assert accepted is not None

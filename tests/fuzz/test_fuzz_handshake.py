"""Whatever the bytes, a handshake is accepted as the standard says or refused in one way only.

Made of whole lines, where the coverage-guided fuzzer (`fuzz_handshake.py`) knows nothing but bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.handshake_oracle import judge

thorough = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALID = [
    b"GET /ws?x=1 HTTP/1.1",
    b"Host: relay.example",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]


@thorough
@given(st.binary(max_size=300))
def test_any_bytes(request: bytes) -> None:
    assert judge(request + b"\r\n\r\n") is None or request.startswith(b"GET ")


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

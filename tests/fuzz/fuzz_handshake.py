"""The opening handshake, from its first byte on. Guided by atheris, with libFuzzer's options.

atheris has wheels for CPython 3.11 to 3.13 on 64-bit Intel Linux. Elsewhere the kept corpus is
changed at random, without guidance.

Input: a byte, then, if that is even, the request as it comes over the socket. If it is odd,
changes to a request that is good, since bytes alone hardly ever make one: each a byte that says
where and how (insert a line, replace one, or add to one), the bytes of the line, and a line feed.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.fuzzing import HAS_ATHERIS, run_unguided

if HAS_ATHERIS:
    import atheris

    atheris.enabled_hooks.add("RegEx")
    instrumented = atheris.instrument_imports(include=["relaycore"])
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from relaycore.handshake import Upgrade, UpgradeRefused, read_upgrade
from support.handshake_oracle import check_refusal, judge

END = b"\r\n\r\n"
GOOD = (
    b"GET /ws?x=1 HTTP/1.1",
    b"Host: relay.example",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)


def changed(changes: bytes) -> bytes:
    lines = list(GOOD)
    for change in filter(None, changes.split(b"\n")):
        how, at = change[0] % 4, change[0] // 4 % len(lines)
        if how < 2:
            lines.insert(at + 1, change[1:])
        elif how == 2:
            lines[at] = change[1:]
        else:
            lines[at] += change[1:]
    return b"\r\n".join(lines) + END


def read(request: bytes) -> Upgrade | None:
    """The same, as it comes in over a socket that its client has then closed for writing."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(request)
        theirs.shutdown(socket.SHUT_WR)
        try:
            return read_upgrade(ours, timeout=10)
        except UpgradeRefused as refused:
            check_refusal(refused)
            expected = refused.response
        told = theirs.recv(8192)
    assert told == expected
    return None


def one_input(data: bytes) -> None:
    request = changed(data[1:]) if data[:1] and data[0] % 2 else data[1:]
    accepted = judge(request)
    if END not in request:
        assert accepted is None
        judge(request + END)
    if len(data) % 16 == 0:  # it costs ten times as much
        assert read(request) == accepted


if __name__ == "__main__":
    if HAS_ATHERIS:
        # With -merge it runs itself, and takes the program from here.
        atheris.Setup([f"{sys.executable} {sys.argv[0]}", *sys.argv[1:]], one_input)
        atheris.Fuzz()
    else:
        run_unguided(sys.argv[1:], one_input)

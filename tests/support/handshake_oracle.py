"""What has to hold of a handshake, whatever its bytes: accepted as the standard says, or refused in
one way only. Written down without the parser's own means."""

from __future__ import annotations

import base64

from relaycore.handshake import Upgrade, UpgradeRefused, accept_key, parse_upgrade


def check_refusal(refused: UpgradeRefused) -> None:
    assert 400 <= refused.status <= 431
    head, _, body = refused.response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % refused.status)
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert b"\n" not in head.replace(b"\r\n", b"")


def judge(request: bytes) -> Upgrade | None:
    """The upgrade, or None if it was refused; any other exception is a fault of the parser."""
    try:
        upgrade = parse_upgrade(request)
    except UpgradeRefused as refused:
        check_refusal(refused)
        return None
    # What was accepted, found again without the parser under test.
    lines = request.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert len(lines) + 1 == request.count(b"\r\n")
    target = lines[0].removeprefix(b"GET ")[:-9].decode()
    if not target.startswith("/"):  # a whole URI
        scheme, _, rest = target.partition("://")
        host = upgrade.headers["host"]
        assert scheme.lower() in ("http", "https")
        assert host
        assert not set(host) & set("/?#@")
        assert rest.startswith(host)
        target = "/" + rest.removeprefix(host).removeprefix("/")
    assert lines[0][-9:-3] == b" HTTP/"
    assert upgrade.path == target
    fields = [line.partition(b":") for line in lines[1:]]
    values = {name.lower(): value.strip(b" \t") for name, _, value in fields}
    keys = [value for name, _, value in fields if name.lower() == b"sec-websocket-key"]
    assert len(keys) == 1
    key = keys[0].strip(b" \t").decode()
    assert len(base64.b64decode(key, validate=True)) == 16
    assert f"Sec-WebSocket-Accept: {accept_key(key)}\r\n".encode() in upgrade.response
    assert upgrade.response.startswith(b"HTTP/1.1 101 ")
    assert values[b"sec-websocket-version"] == b"13"
    assert {name.decode().lower() for name, _, _ in fields} == set(upgrade.headers)
    # Nothing that another reader of the same bytes could take for the start of a body.
    assert b"transfer-encoding" not in values
    assert values.get(b"content-length", b"0") == b"0"
    assert b"\n" not in request.replace(b"\r\n", b"")
    assert b"\0" not in request
    return upgrade

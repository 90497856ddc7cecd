"""The opening handshake, RFC 6455 section 4.2, as a server must judge it."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Iterator

import pytest
from multidict import CIMultiDict

from relaycore import (
    RelayError,
    UpgradeRefused,
    accept_key,
    parse_upgrade,
    read_upgrade,
    upgrade_response,
)

# Key and answer are the example of RFC 6455, section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)
HEADERS = {
    "Host": "relay.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(headers: dict[str, str] = HEADERS, line: str = "GET /ws HTTP/1.1") -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def refusal_of(headers: dict[str, str] | CIMultiDict[str]) -> UpgradeRefused:
    with pytest.raises(UpgradeRefused) as refused:
        upgrade_response(method="GET", version=(1, 1), headers=headers)
    return refused.value


def parse_refusal(raw: bytes) -> UpgradeRefused:
    with pytest.raises(UpgradeRefused) as refused:
        parse_upgrade(raw)
    return refused.value


def test_the_example_of_the_standard() -> None:
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert upgrade_response(method="GET", version=(1, 1), headers=HEADERS) == ANSWER


@pytest.mark.parametrize("connection", ["upgrade", "keep-alive, Upgrade", "UPGRADE ,\tclose"])
@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_tokens_are_found_in_lists_and_in_any_case(connection: str, upgrade: str) -> None:
    headers = HEADERS | {"Connection": connection, "Upgrade": upgrade}
    assert upgrade_response(method="GET", version=(1, 1), headers=headers) == ANSWER


def test_header_names_have_no_case_and_lists_may_be_spread() -> None:
    headers = CIMultiDict({name.upper(): value for name, value in HEADERS.items()})
    headers.add("connection", "keep-alive")
    assert upgrade_response(method="GET", version=(1, 1), headers=headers) == ANSWER


@pytest.mark.parametrize("method", ["POST", "HEAD", "CONNECT", "get", ""])
def test_only_get_opens_a_websocket(method: str) -> None:
    with pytest.raises(UpgradeRefused) as refused:
        upgrade_response(method=method, version=(1, 1), headers=HEADERS)
    assert refused.value.status == 405
    assert refused.value.headers == {"Allow": "GET"}


@pytest.mark.parametrize("version", [(0, 9), (1, 0), (2, 0), (3, 1)])
def test_http_is_1_1(version: tuple[int, int]) -> None:
    with pytest.raises(UpgradeRefused) as refused:
        upgrade_response(method="GET", version=version, headers=HEADERS)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Upgrade", "h2c", 426),
        ("Upgrade", "websockets", 426),
        ("Upgrade", "", 426),
        ("Connection", "keep-alive", 400),
        ("Connection", "Upgraded", 400),
        ("Sec-WebSocket-Version", "8", 426),
        ("Sec-WebSocket-Version", "13, 8", 426),
        ("Sec-WebSocket-Version", "013", 426),
        ("Sec-WebSocket-Key", "", 400),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA", 400),  # 15 bytes
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA=", 400),  # 17 bytes
        ("Sec-WebSocket-Key", KEY[:-2], 400),  # no padding
        ("Sec-WebSocket-Key", KEY[:-3] + "-==", 400),  # another alphabet
        ("Sec-WebSocket-Key", KEY + "\n", 400),
        ("Sec-WebSocket-Key", KEY * 2, 400),
        ("Sec-WebSocket-Key", "é" * 24, 400),
        ("Content-Length", "1", 400),
        ("Transfer-Encoding", "chunked", 400),
    ],
)
def test_a_wrong_header_is_refused(name: str, value: str, status: int) -> None:
    assert refusal_of(HEADERS | {name: value}).status == status


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("Host", 400),
        ("Upgrade", 426),
        ("Connection", 400),
        ("Sec-WebSocket-Key", 400),
        ("Sec-WebSocket-Version", 426),
    ],
)
def test_a_missing_header_is_refused(name: str, status: int) -> None:
    assert refusal_of({k: v for k, v in HEADERS.items() if k != name}).status == status


@pytest.mark.parametrize("name", ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Origin"])
def test_a_header_that_stands_once_may_not_stand_twice(name: str) -> None:
    twice = CIMultiDict(HEADERS | {name: HEADERS.get(name, "x")})
    twice.add(name.lower(), HEADERS.get(name, "x"))
    assert refusal_of(twice).status == 400
    assert refusal_of(dict(HEADERS) | {name: "x", name.lower(): "x"}).status == 400


def test_of_several_headers_that_stand_twice_the_first_by_name_is_told() -> None:
    twice = CIMultiDict(HEADERS | {"Origin": "x"})
    for name in ("Sec-WebSocket-Key", "Origin", "Host"):
        twice.add(name, "x")
    assert refusal_of(twice).reason == "more than one host header"


def test_a_426_says_what_would_be_spoken() -> None:
    wrong_version = refusal_of(HEADERS | {"Sec-WebSocket-Version": "8"})
    assert wrong_version.headers["Sec-WebSocket-Version"] == "13"
    assert refusal_of({"Host": "relay.example"}).headers["Upgrade"] == "websocket"


def test_a_refusal_is_one_complete_http_answer() -> None:
    refused = refusal_of(HEADERS | {"Sec-WebSocket-Version": "8"})
    assert isinstance(refused, RelayError)
    assert str(refused) == "426: only WebSocket version 13 is supported"
    assert refused.response == (
        b"HTTP/1.1 426 Upgrade Required\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 39\r\n"
        b"Connection: close\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
        b"only WebSocket version 13 is supported\n"
    )
    again = pickle.loads(pickle.dumps(refused))
    assert (again.status, again.reason, again.headers) == (426, refused.reason, refused.headers)


def test_a_raw_request_is_taken_apart() -> None:
    headers = HEADERS | {"X-Empty": "", "X-Trace": "a  \t", "Cookie": "é"}
    upgrade = parse_upgrade(request(headers, "GET /ws?room=1&x=%20 HTTP/1.1"))
    assert upgrade.path == "/ws?room=1&x=%20"
    assert upgrade.response == ANSWER
    assert upgrade.headers["host"] == "relay.example"
    assert upgrade.headers["x-trace"] == "a"
    assert upgrade.headers["x-empty"] == ""
    assert upgrade.headers["cookie"] == "é"


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://a.example/ws?room=1", "a.example", "/ws?room=1"),
        ("HTTPS://[::1]:8443/ws", "[::1]:8443", "/ws"),
        ("http://a.example//ws", "a.example", "//ws"),
        ("http://a.example", "a.example", "/"),
        ("http://a.example?x=/", "a.example", "/?x=/"),
    ],
)
def test_a_whole_uri_is_a_path_whose_host_counts(target: str, host: str, path: str) -> None:
    """RFC 9112, section 3.2.2: a server accepts it, and goes by no other host."""
    upgrade = parse_upgrade(request(line=f"GET {target} HTTP/1.1"))
    assert (upgrade.path, upgrade.headers["host"]) == (path, host)
    assert upgrade.response == ANSWER
    headers = {name: value for name, value in HEADERS.items() if name != "Host"}
    assert parse_refusal(request(headers, f"GET {target} HTTP/1.1")).status == 400


def test_repeated_headers_are_joined() -> None:
    raw = request().replace(b"\r\n\r\n", b"\r\nX-A: 1\r\nConnection: keep-alive\r\nx-a: 2\r\n\r\n")
    upgrade = parse_upgrade(raw)
    assert upgrade.headers["x-a"] == "1, 2"
    assert upgrade.headers["connection"] == "Upgrade, keep-alive"


@pytest.mark.parametrize(
    "line",
    [
        "GET /ws",
        "GET  /ws HTTP/1.1",
        "GET /ws HTTP/1.1 ",
        " GET /ws HTTP/1.1",
        "GET /w s HTTP/1.1",
        "GET ws HTTP/1.1",
        "GET relay.example:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ftp://relay.example/ws HTTP/1.1",
        "GET http:///ws HTTP/1.1",
        "GET http://user@relay.example/ws HTTP/1.1",
        "GET http://relay.example#ws HTTP/1.1",
        "GET /\xe9 HTTP/1.1",
        "GET /ws HTTP/1.10",
        "GET /ws http/1.1",
        "GET /ws HTTP/2.0",
        "GET /ws HTTP/1.0",
        "",
    ],
)
def test_a_malformed_request_line_is_refused(line: str) -> None:
    assert parse_refusal(request(line=line)).status == 400


@pytest.mark.parametrize(
    "line",
    [
        b"no colon",
        b": no name",
        b"Name : space before the colon",
        b" folded: line",
        b"X-Nul: a\0b",
        b"X-Return: a\rb",
        b"X-Feed: a\nb",
        b"X-Delete: \x7f",
        "X-Näme: 1".encode(),
    ],
)
def test_a_malformed_header_line_is_refused(line: bytes) -> None:
    assert parse_refusal(request().replace(b"Host:", line + b"\r\nHost:")).status == 400


def test_every_cut_of_a_request_is_incomplete() -> None:
    raw = request()
    for n in range(len(raw)):
        assert parse_refusal(raw[:n]).status == 400


def test_a_client_that_speaks_before_the_answer_is_refused() -> None:
    assert parse_refusal(request() + b"\x81").status == 400


def test_a_hostile_header_takes_no_quadratic_time() -> None:
    # A quadratic scan of this length takes hours and so runs into the test's timeout.
    spaces = b"X: " + b" \t" * 1_000_000 + b"\x01"
    assert parse_refusal(request().replace(b"Host:", spaces + b"\r\nHost:")).status == 400
    repeated = b"X: 1\r\n" * 200_000
    assert len(parse_upgrade(request().replace(b"Host:", repeated + b"Host:")).headers) == 6


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    with server, client:
        client.settimeout(10)
        yield server, client


Pair = tuple[socket.socket, socket.socket]


def test_a_request_is_read_from_a_socket(pair: Pair) -> None:
    server, client = pair
    server.settimeout(7)
    client.sendall(request())
    upgrade = read_upgrade(server)
    assert upgrade == parse_upgrade(request())
    assert server.gettimeout() == 7
    client.setblocking(False)
    with pytest.raises(BlockingIOError):  # the 101 is the caller's to send
        client.recv(1)


def test_a_request_may_come_byte_by_byte(pair: Pair) -> None:
    server, client = pair

    def trickle() -> None:
        for byte in request():
            client.send(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    upgrade = read_upgrade(server)
    thread.join()
    assert upgrade.path == "/ws"


def refusal_over(pair: Pair, **options: float) -> UpgradeRefused:
    """The refusal, after checking that the client was told the same and the socket is as before."""
    server, client = pair
    with pytest.raises(UpgradeRefused) as refused:
        read_upgrade(server, **options)  # type: ignore[arg-type]
    assert client.recv(4096) == refused.value.response
    assert server.gettimeout() is None
    return refused.value


def test_a_refused_client_is_answered(pair: Pair) -> None:
    pair[1].sendall(request(line="POST /ws HTTP/1.1"))
    assert refusal_over(pair).status == 405


def test_a_slow_request_is_refused_when_the_time_for_all_of_it_is_up(pair: Pair) -> None:
    stop = threading.Event()

    def trickle() -> None:
        for byte in b"GET /" + b"x" * 1_000_000:
            if stop.wait(0.01):
                return
            pair[1].send(bytes([byte]))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        assert refusal_over(pair, timeout=0.1).status == 408
    finally:
        stop.set()
        thread.join()


def test_a_silent_client_is_refused(pair: Pair) -> None:
    assert refusal_over(pair, timeout=0.02).status == 408


def test_a_request_without_end_is_refused_at_the_limit(pair: Pair) -> None:
    raw = request()
    pair[1].sendall(raw)
    assert refusal_over(pair, max_bytes=len(raw) - 1).status == 431


def test_a_request_of_just_the_limit_is_accepted(pair: Pair) -> None:
    raw = request()
    pair[1].sendall(raw)
    assert read_upgrade(pair[0], max_bytes=len(raw)).path == "/ws"


def test_a_client_that_hangs_up_early_is_refused(pair: Pair) -> None:
    client = pair[1]
    client.sendall(b"GET /ws HT")
    client.shutdown(socket.SHUT_WR)
    assert refusal_over(pair).status == 400
    # One that is gone altogether cannot be told, and that is no other error.
    other, gone = socket.socketpair()
    with other:
        gone.sendall(b"GET /ws HT")
        gone.close()
        with pytest.raises(UpgradeRefused):
            read_upgrade(other)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"max_bytes": 0}])
def test_limits_are_positive(pair: Pair, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        read_upgrade(pair[0], **options)

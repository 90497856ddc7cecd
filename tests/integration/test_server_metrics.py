"""Metrics and health of a running server, on the public address and on one of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.api_client import Answer, Api
from support.postgres import open_directory
from support.server import PASSWORD, ServerProcess

TOKEN = "scrape-" + "0123456789" * 4
ADMIN = "admin@example.org"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Everything on one address."""
    directory = tmp_path_factory.mktemp("server")
    with ServerProcess.start(directory, env={"ROOMSERVER_METRICS_TOKEN": TOKEN}) as server:
        server.add_user()
        server.add_user(ADMIN, admin=True)
        yield server


@pytest.fixture(scope="module")
def apart() -> Iterator[ServerProcess]:
    """With an address for administrators, and a database."""
    with open_directory() as directory:
        options = ("--admin-port", "0", "--database-url", "embedded")
        with ServerProcess.start(directory / "data", *options) as server:
            server.add_user(ADMIN, admin=True)
            yield server


@pytest.fixture
def api(shared: ServerProcess, session: aiohttp.ClientSession) -> Api:
    return Api(shared.url, session)


@pytest.fixture
def public(apart: ServerProcess, session: aiohttp.ClientSession) -> Api:
    return Api(apart.url, session)


@pytest.fixture
def private(apart: ServerProcess, session: aiohttp.ClientSession) -> Api:
    assert apart.admin_url is not None
    return Api(apart.admin_url, session)


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.body["code"]) == (status, code)


async def test_metrics_on_the_public_address_are_not_for_everybody(api: Api) -> None:
    refused(await api.call("GET", "/metrics"), 401, "unauthorized")
    for wrong in ("x", TOKEN[:-1], TOKEN + "0", "é" * 40):
        refused(await api.call("GET", "/metrics", token=wrong), 401, "token_invalid")
    user = (await api.login())["accessToken"]
    refused(await api.call("GET", "/metrics", token=user), 403, "not_allowed")
    admin = (await api.login(ADMIN))["accessToken"]
    for token in (admin, TOKEN):
        answer = await api.call("GET", "/metrics", token=token)
        assert answer.status == 200
        assert "roomserver_build_info" in answer.body


async def test_an_address_for_administrators_has_what_is_theirs_and_nothing_else(
    public: Api, private: Api
) -> None:
    for path in ("/metrics", "/api/admin/users", "/api/admin/rooms"):
        refused(await public.call("GET", path), 404, "not_found")
    for path in ("/healthz", "/readyz", "/health", "/openapi.json"):
        assert (await public.call("GET", path)).status == 200
        assert (await private.call("GET", path)).status == 200
    assert (await private.call("GET", "/metrics")).status == 200
    refused(await private.call("GET", "/api/admin/users"), 401, "unauthorized")
    admin = (await public.login(ADMIN))["accessToken"]
    assert (await private.call("GET", "/api/admin/users", token=admin)).status == 200
    refused(await private.call("GET", "/ws"), 404, "not_found")
    login = {"email": ADMIN, "password": PASSWORD}
    refused(await private.call("POST", "/auth/broadcaster", json=login), 404, "not_found")
    described = (await private.call("GET", "/openapi.json")).body["paths"]
    assert "/metrics" in described
    assert "/auth/broadcaster" not in described
    assert "/metrics" not in (await public.call("GET", "/openapi.json")).body["paths"]


async def test_promtool_finds_nothing_to_object_to(public: Api, private: Api) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is not installed: .ci/system-packages test"
    token = (await public.login(ADMIN))["accessToken"]
    room = await public.create_room(token)
    async with public.source(room), public.listener(room), public.listener(room):
        text = (await private.call("GET", "/metrics")).body
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, text=True, capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    found = samples(text)
    assert found["roomserver_room_listeners", room.id] == 2
    assert found["roomserver_connections", "listener"] == 2
    assert found["roomserver_connections", "broadcaster"] == 1
    assert found["roomserver_rooms", "active"] == 1
    assert found["roomserver_database_up",] == 1
    assert found["roomserver_outbox_dead_letters_total",] == 0
    assert found["process_open_fds",] > 10


async def test_requests_are_counted_by_route_and_not_by_what_clients_make_up(api: Api) -> None:
    async def counted() -> dict[tuple[str, ...], float]:
        text = (await api.call("GET", "/metrics", token=TOKEN)).body
        return {key: n for key, n in samples(text).items() if key[0].startswith("roomserver_http")}

    async def ask() -> None:
        await api.call("GET", "/nowhere/at/all")
        await api.call("PROPFIND", "/coffee")
        await api.call("GET", "/api/broadcaster/rooms/some-room")
        await api.call("DELETE", "/health")

    await ask()
    before = await counted()
    await ask()
    after = await counted()
    assert after.keys() == before.keys()
    total = "roomserver_http_requests_total"
    grown = {key[1:]: after[key] - before[key] for key in after if key[0] == total}
    assert {key: n for key, n in grown.items() if n} == {
        ("GET", "other", "404"): 1,
        ("other", "other", "404"): 1,
        ("GET", "/api/broadcaster/rooms/{room}", "401"): 1,
        ("DELETE", "other", "405"): 1,
        ("GET", "/metrics", "200"): 1,
    }


async def test_a_server_whose_database_hangs_is_alive_but_not_ready(
    apart: ServerProcess, private: Api
) -> None:
    assert (await private.call("GET", "/readyz")).body == {"status": "ready"}
    stop_database(apart.data_dir, signal.SIGSTOP)  # it takes connections and answers nothing
    try:
        async with asyncio.timeout(60):  # what was said last holds for a second
            while (answer := await private.call("GET", "/readyz")).status == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        refused(answer, 503, "not_ready")
        assert answer.body["detail"] == "database_away"
        assert int(answer.headers["Retry-After"]) > 0
        assert (await private.call("GET", "/healthz")).body == {"status": "alive"}
    finally:
        stop_database(apart.data_dir, signal.SIGCONT)
    async with asyncio.timeout(60):
        while (await private.call("GET", "/readyz")).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    probes = [e for e in apart.events if e.get("path") == "/readyz"]
    assert not probes, "asked every few seconds, it is nothing for the audit log"


def stop_database(data_dir: Path, number: signal.Signals) -> None:
    """A signal to every process of the database: they work in its directory."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == data_dir / "postgres" / "data":
                os.kill(int(process.name), number)

"""Another key for tokens while a server runs: nobody notices, unless the old one is revoked."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import aiohttp

from support.api_client import Api
from support.postgres import open_directory
from support.server import ServerProcess, command, environment

from .conftest import ADMIN


def rotate(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("secret", "rotate", "--data-dir", str(data_dir), *options),
        env=environment(),
        text=True,
        timeout=60,
        check=True,
        capture_output=True,
    )


async def test_tokens_hold_over_a_new_key_and_end_when_the_old_one_is_revoked(
    tmp_path: Path,
) -> None:
    with ServerProcess.start(tmp_path) as server:
        server.add_user()
        async with aiohttp.ClientSession() as session:
            api = Api(server.url, session)
            access = (await api.login())["accessToken"]
            room = await api.create_room(access)
            said = await asyncio.to_thread(rotate, tmp_path)
            assert "new key" in said.stderr
            await asyncio.to_thread(server.wait_for_event, "signing_key_changed")

            async with api.listener(room), api.source(room):
                pass  # the listener's token is of the new key, the source's of the old one
            assert (await api.login())["accessToken"].split(".")[0] != access.split(".")[0]

            await asyncio.to_thread(rotate, tmp_path, "--revoke")
            server.signal(signal.SIGHUP)
            await asyncio.to_thread(
                server.wait_for_event, "signing_key_changed", where=lambda e: e["old_keys"] == 0
            )
            answer = await api.call("POST", "/auth/room/create", token=access, json={})
            assert answer.body["code"] == "token_invalid"
            assert await api.create_room((await api.login())["accessToken"])
        keys = [line.split()[0] for line in (tmp_path / "secret").read_text().splitlines()]
        assert not [key for key in keys if key in server.output()]


async def test_a_key_given_by_the_settings_is_replaced_there(tmp_path: Path) -> None:
    old, new = "o" * 32, "n" * 32
    async with aiohttp.ClientSession() as session:
        with ServerProcess.start(tmp_path, env={"ROOMSERVER_SECRET": old}) as server:
            server.add_user()
            api = Api(server.url, session)
            access = (await api.login())["accessToken"]
        rotated = {"ROOMSERVER_SECRET": new, "ROOMSERVER_OLD_SECRETS": old}
        with ServerProcess.start(tmp_path, env=rotated) as server:
            api = Api(server.url, session)
            assert await api.create_room(access)
        with ServerProcess.start(tmp_path, env={"ROOMSERVER_SECRET": new}) as server:
            answer = await Api(server.url, session).call(
                "POST", "/auth/room/create", token=access, json={}
            )
            assert answer.body["code"] == "token_invalid"


async def test_a_new_data_directory_for_a_used_database_is_warned_about() -> None:
    with open_directory() as directory:
        data_dir = directory / "data"
        with ServerProcess.start(data_dir, "--database-url", "embedded") as server:
            server.wait_for_event("no_accounts")
            await asyncio.to_thread(server.add_user, ADMIN)
        (data_dir / "secret").unlink()
        with ServerProcess.start(data_dir, "--database-url", "embedded") as server:
            warned = server.wait_for_event("new_signing_key_for_a_used_database")
            assert (warned["level"], warned["accounts"]) == ("warning", 1)
        with ServerProcess.start(data_dir, "--database-url", "embedded") as server:
            pass
        names = [event["event"] for event in server.events]
        assert "new_signing_key_for_a_used_database" not in names

"""What happens to accounts is in the audit log, with who it was and from where."""

from __future__ import annotations

import asyncio
from typing import Any

from support.api_client import ROOM_PASSWORD, Api
from support.server import PASSWORD

EMAIL = "watched@example.org"


async def entries(api: Api, token: str, count: int, path: str) -> list[dict[str, Any]]:
    """The newest lines, when there are so many: they take a moment to the database."""
    async with asyncio.timeout(30):
        while True:
            answer = await api.call("GET", path, token=token)
            assert answer.status == 200
            found: list[dict[str, Any]] = answer.body["entries"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_what_happens_to_an_account_is_in_the_audit_log(api: Api, admin: str) -> None:
    browser = {"User-Agent": "Browser/1.0 " + "x" * 1000}

    async def call(path: str, token: str | None = None, **body: Any) -> Any:
        answer = await api.call("POST", path, token=token, json=body, headers=browser)
        return answer.body

    invite = await call("/api/admin/invites", admin, email=EMAIL)
    first = await call("/auth/register", email=EMAIL, password=PASSWORD, invite=invite["invite"])
    second = await call("/auth/refresh", refreshToken=first["refreshToken"])
    token = second["accessToken"]
    await call("/auth/password", token, oldPassword="wrong", newPassword="another one")
    third = await call("/auth/password", token, oldPassword=PASSWORD, newPassword="another one")
    token = third["accessToken"]
    room = await call("/auth/room/create", token, password=ROOM_PASSWORD)
    fourth = await call("/auth/broadcaster", email=EMAIL, password="another one")
    await call("/auth/logout", refreshToken=fourth["refreshToken"])

    own = await entries(api, token, 7, "/api/audit")
    assert [entry["event"] for entry in own] == [
        "logout",
        "login_success",
        "room_created",
        "password_changed",
        "login_failure",
        "token_refresh",
        "account_created",
    ]
    user = own[0]["userId"]
    for entry in own:
        assert entry["userId"] == user
        assert entry["address"] == "127.0.0.1"
        assert entry["userAgent"] == browser["User-Agent"][:256]
    assert own[2]["roomId"] == room["roomId"]
    assert own[-1]["details"] == {"role": "user", "invited": True}

    async with api.socket(headers=browser) as socket:
        joined = await api.join(room["roomCode"])
        await socket.say("registerListener", roomId=room["roomId"], roomToken=joined)
        await socket.until("listenerRegistered")
        path = f"/api/admin/audit?room={room['roomId']}&event=room_joined"
        (entry,) = await entries(api, admin, 1, path)
        assert entry["userAgent"] == browser["User-Agent"][:256]

"""Sessions, end to end: rotation, theft, two tabs, the cookie, logout, another password."""

from __future__ import annotations

import asyncio
import uuid
from http.cookies import SimpleCookie
from typing import Any

import pytest

from support.api_client import Answer, Api
from support.server import PASSWORD, ServerProcess


@pytest.fixture
async def email(api: Api, admin: str) -> str:
    """A new account's address."""
    email = f"{uuid.uuid4()}@example.org"
    body = {"email": email, "password": PASSWORD}
    answer = await api.call("POST", "/api/admin/users", token=admin, json=body)
    assert answer.status == 201, answer
    return email


async def refresh(api: Api, token: str | None = None, **options: Any) -> Answer:
    body = {"refreshToken": token} if token is not None else {}
    return await api.call("POST", "/auth/refresh", json=body, **options)


async def passes(api: Api, access_token: str) -> bool:
    """Whether an access token is good: the room does not exist, but that is another matter."""
    path = "/api/broadcaster/rooms/NNNNNN/token"
    answer = await api.call("POST", path, token=access_token)
    assert answer.body["code"] in ("room_not_found", "token_invalid")
    return answer.status == 404


async def test_a_refresh_token_is_exchanged_for_a_session(api: Api, email: str) -> None:
    tokens = await api.login(email)
    for _ in range(3):
        answer = await refresh(api, tokens["refreshToken"])
        assert answer.status == 200
        assert set(answer.body) == {"accessToken", "refreshToken"}
        assert answer.body["refreshToken"] != tokens["refreshToken"]
        assert answer.headers["RateLimit-Policy"] == '"refresh";q=300;w=900'
        tokens = answer.body
        assert await passes(api, tokens["accessToken"])


async def test_a_stolen_token_ends_its_session_and_no_other(
    api: Api, email: str, server: ServerProcess
) -> None:
    stolen, other = await api.login(email), await api.login(email)
    second = (await refresh(api, stolen["refreshToken"])).body
    third = (await refresh(api, second["refreshToken"])).body
    answer = await refresh(api, stolen["refreshToken"])
    assert (answer.status, answer.body["code"]) == (401, "token_invalid")
    for tokens in (second, third):
        assert (await refresh(api, tokens["refreshToken"])).status == 401
    assert (await refresh(api, other["refreshToken"])).status == 200
    theft = await asyncio.to_thread(server.wait_for_event, "token_theft")
    assert theft["user"]
    assert len([e for e in server.events if e.get("user") == theft["user"]]) >= 5


async def test_tabs_that_refresh_at_the_same_time_are_no_theft(
    api: Api, email: str, server: ServerProcess
) -> None:
    thefts = [event for event in server.events if event["event"] == "token_theft"]
    tokens = await api.login(email)
    answers = await asyncio.gather(*(refresh(api, tokens["refreshToken"]) for _ in range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    successors = [answer.body["refreshToken"] for answer in answers]
    assert len(set(successors)) == 8
    following = await asyncio.gather(*(refresh(api, token) for token in successors))
    assert [answer.status for answer in following] == [200] * 8
    assert thefts == [event for event in server.events if event["event"] == "token_theft"]


async def test_a_thief_and_an_owner_at_the_same_time_both_end(api: Api, email: str) -> None:
    tokens = await api.login(email)
    second = (await refresh(api, tokens["refreshToken"])).body
    third = (await refresh(api, second["refreshToken"])).body
    answers = await asyncio.gather(
        *(refresh(api, t["refreshToken"]) for t in (third, tokens, third, tokens))
    )
    assert 401 in [answer.status for answer in answers]
    for answer in answers:
        if answer.status == 200:
            assert (await refresh(api, answer.body["refreshToken"])).status == 401


@pytest.mark.parametrize("token", ["nonsense", "x" * 512])
async def test_what_is_no_refresh_token_is_refused(api: Api, token: str) -> None:
    answer = await refresh(api, token)
    assert (answer.status, answer.body["code"]) == (401, "token_invalid")


async def test_nothing_to_refresh_with_is_refused(api: Api) -> None:
    answer = await refresh(api)
    assert (answer.status, answer.body["code"]) == (401, "token_invalid")


async def test_a_logout_ends_the_session(api: Api, email: str) -> None:
    tokens, other = await api.login(email), await api.login(email)
    body = {"refreshToken": tokens["refreshToken"]}
    for _ in range(2):
        answer = await api.call("POST", "/auth/logout", json=body)
        assert (answer.status, answer.body) == (204, "")
    assert (await refresh(api, tokens["refreshToken"])).status == 401
    assert (await refresh(api, other["refreshToken"])).status == 200
    assert (await api.call("POST", "/auth/logout", json={"refreshToken": "x"})).status == 204


async def test_another_password_ends_every_other_session_at_once(api: Api, email: str) -> None:
    mine, other = await api.login(email), await api.login(email)

    async def change(old: str, new: str, token: str) -> Answer:
        body = {"oldPassword": old, "newPassword": new}
        return await api.call("POST", "/auth/password", token=token, json=body)

    answer = await change("wrong", "another one", mine["accessToken"])
    assert (answer.status, answer.body["code"]) == (401, "invalid_credentials")
    answer = await change(PASSWORD, "x" * 73, mine["accessToken"])
    assert answer.status == 400
    answer = await change(PASSWORD, "another one", mine["accessToken"])
    assert answer.status == 200
    for tokens in (mine, other):
        assert not await passes(api, tokens["accessToken"])
        assert (await refresh(api, tokens["refreshToken"])).status == 401
    assert await passes(api, answer.body["accessToken"])
    assert (await refresh(api, answer.body["refreshToken"])).status == 200
    assert await api.login(email, "another one")
    body = {"email": email, "password": PASSWORD}
    assert (await api.call("POST", "/auth/broadcaster", json=body)).status == 401


async def test_an_access_token_is_no_way_to_guess_the_password(api: Api, email: str) -> None:
    token = (await api.login(email))["accessToken"]
    body = {"oldPassword": "wrong", "newPassword": "another one"}
    statuses = [
        (await api.call("POST", "/auth/password", token=token, json=body)).status for _ in range(6)
    ]
    assert statuses == [401] * 5 + [429]
    login = {"email": email.upper(), "password": PASSWORD}
    assert (await api.call("POST", "/auth/broadcaster", json=login)).status == 429


# The cookie


class Browser:
    """A page of some origin, and the cookie that its browser holds for the server."""

    def __init__(self, api: Api, origin: str | None) -> None:
        self.api = api
        self.origin = origin
        self.cookie: str | None = None
        self.attributes: dict[str, str] = {}

    async def post(self, path: str, **body: Any) -> Answer:
        headers = {"Origin": self.origin} if self.origin is not None else {}
        if self.cookie:
            headers["Cookie"] = f"theme=dark; refresh_token={self.cookie}"
        answer = await self.api.call("POST", path, json=body, headers=headers)
        if set_cookie := answer.headers.get("Set-Cookie"):
            morsel = SimpleCookie(set_cookie)["refresh_token"]
            self.cookie = morsel.value
            self.attributes = {name: value for name, value in morsel.items() if value}
        return answer

    async def log_in(self, email: str) -> Answer:
        return await self.post("/auth/broadcaster", email=email, password=PASSWORD, cookie=True)


async def test_a_browsers_refresh_token_is_in_a_cookie_that_no_script_reads(
    api: Api, email: str, server: ServerProcess
) -> None:
    browser = Browser(api, server.url)
    answer = await browser.log_in(email)
    assert answer.status == 200
    assert set(answer.body) == {"accessToken"}
    assert browser.attributes == {
        "path": "/auth",
        "max-age": "604800",
        "secure": True,
        "httponly": True,
        "samesite": "Strict",
    }
    first = browser.cookie
    answer = await browser.post("/auth/refresh")
    assert (answer.status, set(answer.body)) == (200, {"accessToken"})
    assert await passes(api, answer.body["accessToken"])
    assert browser.cookie not in (None, "", first)

    answer = await browser.post("/auth/logout")
    assert answer.status == 204
    assert (browser.cookie, browser.attributes["path"]) == ("", "/auth")
    assert (await browser.post("/auth/refresh")).status == 401


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example"])
async def test_a_page_of_another_origin_can_not_use_the_cookie(
    api: Api, email: str, server: ServerProcess, origin: str | None
) -> None:
    ours = Browser(api, server.url)
    await ours.log_in(email)
    theirs = Browser(api, origin)
    answer = await theirs.log_in(email)
    assert (answer.status, answer.body["code"]) == (403, "origin_not_allowed")
    theirs.cookie = ours.cookie
    for path in ("/auth/refresh", "/auth/logout"):
        answer = await theirs.post(path)
        assert (answer.status, answer.body["code"]) == (403, "origin_not_allowed")
    assert (await ours.post("/auth/refresh")).status == 200


async def test_a_stolen_cookie_is_caught_and_taken_away(
    api: Api, email: str, server: ServerProcess
) -> None:
    browser, thief = Browser(api, server.url), Browser(api, server.url)
    await browser.log_in(email)
    thief.cookie = browser.cookie
    for _ in range(2):
        await browser.post("/auth/refresh")
    assert (await thief.post("/auth/refresh")).status == 401
    assert thief.cookie == ""
    assert (await browser.post("/auth/refresh")).status == 401

"""The Dashboard: what happened in a room, what can be changed about it, and administration."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, Page, Route, expect

from support.api_client import Api, RoomKeys
from support.pages import NARROWEST, check_looks, opened, sign_in, visitor
from support.server import PASSWORD, ServerProcess

OWNER = "engineer@example.org"
FORMULA = '=HYPERLINK("https://example.org","Free")'
# In one task, so that no observer of sizes is told before: px.
WIDTH_WHEN_NARROWED = f"""(() => {{
  document.body.style.inlineSize = '{NARROWEST[0]}px';
  const width = document.body.scrollWidth;
  document.body.style.inlineSize = '';
  return width;
}})()"""

SEVERAL_FRAMES = """async () => {
  for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
}"""


@asynccontextmanager
async def api_of(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(server.url, session)


async def new_room(api: Api, email: str = OWNER, **wishes: Any) -> tuple[RoomKeys, str]:
    """A room of the account, and an access token of it."""
    token = (await api.login(email))["accessToken"]
    return await api.create_room(token, **wishes), token


async def download(page: Page, button: str, nth: int = 0) -> list[dict[str, str]]:
    """The rows of a file that a button offers."""
    async with page.expect_download() as offered:
        await page.get_by_role("button", name=button).nth(nth).click()
    path = await (await offered.value).path()
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_a_room_shows_who_was_there_and_its_figures(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with api_of(studio) as api:
        room, _ = await new_room(api, name="Reported")
        async with api.source(room), api.listener(room, nickname="Stays"):
            async with api.listener(room, nickname=FORMULA):
                pass
            async with (
                visitor(browser) as context,
                opened(context, studio.url + "/dashboard") as page,
            ):
                await sign_in(page, OWNER)
                await page.get_by_role("link", name="Reported").click()
                tile = page.locator(".tile")
                await expect(tile.filter(has_text="Listening now")).to_contain_text("1")
                await expect(tile.filter(has_text="Peak")).to_contain_text("2")
                await expect(tile.filter(has_text="Visits")).to_contain_text("2")
                people = page.get_by_role("region", name="Who was there")
                gone = people.get_by_role("row").filter(has_text="HYPERLINK")
                await expect(gone).to_contain_text("left")
                here = people.get_by_role("row").filter(has_text="Stays")
                await expect(here).to_contain_text("is there")
                await expect(
                    page.get_by_role("img", name="Listeners over time: 1 now")
                ).to_be_visible()
                await expect(page.get_by_role("img", name="Most listeners at once")).to_be_visible()
                await expect(page.locator(".chart canvas")).to_have_count(3)
                # A chart that is still as wide as the window was widens nothing: the browser
                # says only after the layout that there is less room.
                assert await page.evaluate(WIDTH_WHEN_NARROWED) <= NARROWEST[0]
                await check_looks(page, pictures, "dashboard-room")

                rows = await download(page, "Export CSV", 1)
                assert {row["nickname"] for row in rows} == {"Stays", "'" + FORMULA, ""}
                assert {row["role"] for row in rows} == {"listener", "broadcaster"}
                days = await download(page, "Export CSV", 0)
                assert [(day["peakListeners"], day["totalListeners"]) for day in days] == [
                    ("2", "2")
                ]

                await page.get_by_text("There", exact=True).click()
                await expect(gone).to_have_count(0)
                await expect(here).to_be_visible()
                await page.reload()
                await expect(page.get_by_role("heading", name="Reported")).to_be_visible()


async def test_an_owner_changes_a_room_its_invites_and_its_bans(
    browser: Browser, studio: ServerProcess
) -> None:
    async with api_of(studio) as api:
        room, token = await new_room(api, name="Before")
        path = f"/api/broadcaster/rooms/{room.id}"
        ban = {"address": "192.0.2.7", "reason": "Noise"}
        assert (await api.call("POST", path + "/ban", token=token, json=ban)).status == 201
        async with (
            visitor(browser) as context,
            opened(context, f"{studio.url}/dashboard#/rooms/{room.id}") as page,
        ):
            await sign_in(page, OWNER)
            await page.get_by_role("button", name="Settings").click()
            await page.get_by_label("Name", exact=True).fill("After")
            await page.get_by_label("Listed publicly").check()
            await page.get_by_role("spinbutton", name="Most listeners").fill("7")
            await page.get_by_role("dialog").get_by_role("button", name="Save").click()
            await expect(page.get_by_role("heading", name="After")).to_be_visible()
            changed = (await api.call("GET", path, token=token)).body
            assert (changed["name"], changed["public"], changed["maxListeners"]) == (
                "After",
                True,
                7,
            )

            await page.get_by_role("button", name="Change password").click()
            await page.get_by_label("Password for listeners").fill("another")
            await page.get_by_role("dialog").get_by_role("button", name="Change password").click()
            await expect(page.get_by_text("The new password is in force.")).to_be_visible()
            await api.join(room.code, "another")

            await page.get_by_role("button", name="Make invite").click()
            await expect(page.get_by_label("Invite link")).to_be_visible()
            await page.get_by_role("button", name="Revoke").click()
            await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
            invites = page.get_by_role("region", name="Invites")
            await expect(invites.get_by_role("row").nth(1)).to_contain_text("Revoked")

            bans = page.get_by_role("region", name="Bans").filter(has=page.get_by_role("table"))
            await expect(bans.get_by_role("row").nth(1)).to_contain_text("192.0.2.7")
            await page.get_by_role("button", name="Lift").click()
            await page.get_by_role("dialog").get_by_role("button", name="Lift").click()
            await expect(page.get_by_text("Nobody is banned.")).to_be_visible()
            assert (await api.call("GET", path + "/bans", token=token)).body["bans"] == []

            await page.get_by_role("button", name="Close room").click()
            await page.get_by_role("dialog").get_by_role("button", name="Close room").click()
            await expect(page.get_by_text("Closed · by you")).to_be_visible()


@asynccontextmanager
async def audit_log(browser: Browser, server: ServerProcess) -> AsyncIterator[tuple[Page, str]]:
    """The page, filtered by a room that was just made, and the room's id."""
    async with api_of(server) as api:
        room, _ = await new_room(api, name="Audited")
        async with (
            visitor(browser) as context,
            opened(context, server.url + "/dashboard#/audit") as page,
        ):
            await sign_in(page, OWNER)
            await page.get_by_role("combobox", name="Room", exact=True).select_option(room.id)
            await expect(page.get_by_role("row")).to_have_count(2)
            yield page, room.id


async def test_the_audit_log_is_filtered_and_exported(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    async with audit_log(browser, studio) as (page, room_id):
        rows = page.get_by_role("row")
        await expect(rows.nth(1)).to_contain_text("Room made")
        await page.get_by_label("Event").select_option("room_closed")
        await expect(page.get_by_text("Nothing found.")).to_be_visible()
        await page.get_by_label("Event").select_option("")
        await expect(rows).to_have_count(2)
        exported = await download(page, "Export CSV")
        assert [(row["event"], row["roomId"]) for row in exported] == [("room_created", room_id)]
        await page.get_by_role("combobox", name="Room", exact=True).select_option("")
        await check_looks(page, pictures, "audit")


async def test_a_late_answer_does_not_replace_what_was_asked_for_since(
    browser: Browser, studio: ServerProcess
) -> None:
    async with audit_log(browser, studio) as (page, _):
        rows, event = page.get_by_role("row"), page.get_by_label("Event")
        release = asyncio.Event()

        async def hold_back(route: Route) -> None:
            await release.wait()
            await route.continue_()

        await page.route("**/api/audit?*event=room_closed*", hold_back)
        await event.select_option("room_closed")
        async with page.expect_response("**/api/audit?*event=room_created*") as asked_since:
            await event.select_option("room_created")
        await (await asked_since.value).finished()
        async with page.expect_response("**/api/audit?*event=room_closed*") as late:
            release.set()
        await (await late.value).finished()
        await page.evaluate(SEVERAL_FRAMES)
        assert await rows.count() == 2


async def test_another_password_is_in_force_and_the_old_one_is_not(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    studio.add_user("changes@example.org")
    async with (
        visitor(browser) as context,
        opened(context, studio.url + "/dashboard#/account", refusals=[401]) as page,
    ):
        await sign_in(page, "changes@example.org")
        await page.get_by_label("Old password").fill("wrong")
        await page.get_by_label("New password", exact=True).fill("a better one")
        await page.get_by_label("New password again").fill("a better one")
        await page.get_by_role("button", name="Change password").click()
        await expect(page.get_by_role("alert")).to_have_text("The old password is wrong.")
        await check_looks(page, pictures, "account")
        await page.get_by_label("Old password").fill(PASSWORD)
        await page.get_by_role("button", name="Change password").click()
        await expect(page.get_by_text("The new password is in force")).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="changes@example.org")).to_be_visible()
    async with api_of(studio) as api:
        await api.login("changes@example.org", "a better one")
        old = {"email": "changes@example.org", "password": PASSWORD}
        assert (await api.call("POST", "/auth/broadcaster", json=old)).status == 401


async def test_an_administrator_adds_invites_and_disables(
    browser: Browser, studio: ServerProcess, pictures: Path
) -> None:
    studio.add_user("admin@example.org", admin=True)
    async with (
        visitor(browser) as context,
        opened(context, studio.url + "/dashboard#/users") as page,
    ):
        await sign_in(page, "admin@example.org")
        dialog = page.get_by_role("dialog")
        await page.get_by_role("button", name="Add user").click()
        await dialog.get_by_label("E-mail").fill("added@example.org")
        await dialog.get_by_label("Password").fill(PASSWORD)
        await dialog.get_by_role("button", name="Add user").click()
        row = page.get_by_role("row").filter(has_text="added@example.org")
        await expect(row).to_contain_text("Enabled")
        await page.get_by_role("button", name="Invite", exact=True).click()
        await dialog.get_by_label("E-mail").fill("invited@example.org")
        await dialog.get_by_role("button", name="Make invite").click()
        link = await page.get_by_label("Link to make an account").input_value()
        await expect(
            page.get_by_role("row").filter(has_text="invited@example.org")
        ).to_contain_text("Good")
        await check_looks(page, pictures, "users")

        async with api_of(studio) as api:
            _, token = await new_room(api, "added@example.org", name="Theirs")
            await page.get_by_role("link", name="All rooms").click()
            theirs = page.get_by_role("row").filter(has_text="Theirs")
            await expect(theirs).to_contain_text("added@example.org")
            await check_looks(page, pictures, "all-rooms")
            await page.get_by_role("link", name="Users").click()
            await row.get_by_role("button", name="Disable").click()
            await dialog.get_by_role("button", name="Disable").click()
            await expect(row).to_contain_text("Disabled since")
            refused = await api.call("GET", "/api/broadcaster/me", token=token)
            assert refused.status == 401
            await page.get_by_role("link", name="All rooms").click()
            await page.get_by_text("Closed", exact=True).click()
            await expect(theirs).to_contain_text("account disabled")
            await page.get_by_role("link", name="Everybody’s audit log").click()
            await page.get_by_label("Event").select_option("account_disabled")
            await expect(page.get_by_role("row").nth(1)).to_contain_text("admin@example.org")

        async with visitor(browser) as other, opened(other, link) as invited:
            await expect(invited.get_by_label("Invite")).not_to_be_empty()
            await invited.get_by_label("E-mail").fill("invited@example.org")
            await invited.get_by_label("Password").fill(PASSWORD)
            await invited.get_by_role("button", name="Create account").click()
            await expect(invited.get_by_text("No room is open.")).to_be_visible()


async def test_where_registration_is_closed_nobody_is_invited(
    browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    with ServerProcess.start(tmp_path) as server:
        server.add_user("admin@example.org", admin=True)
        async with (
            visitor(browser) as context,
            opened(context, server.url + "/dashboard#/users") as page,
        ):
            await sign_in(page, "admin@example.org")
            await expect(page.get_by_text("Registration is closed")).to_be_visible()
            await expect(page.get_by_role("button", name="Add user")).to_be_visible()
            await expect(page.get_by_role("button", name="Invite", exact=True)).to_have_count(0)
        link = f"{server.url}/broadcast#account-invite=of-yesterday"
        async with visitor(browser) as context, opened(context, link) as page:
            told = page.get_by_role("alert")
            await expect(told).to_contain_text("lets nobody make an account")
            await check_looks(page, pictures, "invite-of-no-worth")


async def test_skipping_to_the_content_loses_neither_the_view_nor_an_invite(
    browser: Browser, studio: ServerProcess
) -> None:
    async with visitor(browser) as context:
        link = studio.url + "/broadcast#account-invite=secret"
        async with opened(context, link) as page:
            await expect(page.get_by_label("Invite")).to_have_value("secret")
            await page.get_by_role("link", name="Skip to the content").press("Enter")
            await expect(page.get_by_role("main")).to_be_focused()
            await expect(page).to_have_url(link)
        view = studio.url + "/dashboard#/account"
        async with opened(context, view) as page:
            await sign_in(page, OWNER)
            await page.get_by_role("link", name="Skip to the content").press("Enter")
            await expect(page.get_by_role("main")).to_be_focused()
            await expect(page).to_have_url(view)
            await expect(page.get_by_role("heading", name=OWNER)).to_be_visible()


async def test_who_signs_out_while_the_server_is_out_of_reach_is_told_that_they_are_not(
    browser: Browser, studio: ServerProcess
) -> None:
    async with (
        visitor(browser) as context,
        opened(
            context, studio.url + "/dashboard#/account", refusals=["ERR_INTERNET_DISCONNECTED"]
        ) as page,
    ):
        await sign_in(page, OWNER)
        await context.set_offline(True)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_text("You are still signed in.")).to_be_visible()
        await expect(page.get_by_role("heading", name=OWNER)).to_be_visible()
        await context.set_offline(False)
        await page.reload()
        await expect(page.get_by_role("heading", name=OWNER)).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_who_is_no_administrator_sees_nothing_of_administration(
    browser: Browser, studio: ServerProcess
) -> None:
    async with (
        visitor(browser) as context,
        opened(context, studio.url + "/dashboard#/users") as page,
    ):
        await sign_in(page, OWNER)
        await expect(page.get_by_text("This is for administrators.")).to_be_visible()
        await expect(page.get_by_role("link", name="Users")).to_have_count(0)


async def test_administration_on_an_address_of_its_own_is_told(
    browser: Browser, tmp_path: Path
) -> None:
    with ServerProcess.start(tmp_path, "--admin-port", "0") as server:
        server.add_user("admin@example.org", admin=True)
        async with (
            visitor(browser) as context,
            opened(context, server.url + "/dashboard#/users", refusals=[404]) as page,
        ):
            await sign_in(page, "admin@example.org")
            await expect(page.get_by_role("alert")).to_contain_text("an address of its own")
            await page.get_by_role("link", name="Your rooms").click()
            await expect(page.get_by_text("No room is open.")).to_be_visible()

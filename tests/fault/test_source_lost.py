"""A source that is killed, cut off or asleep: what its listeners are told, and hear afterwards.

One that sleeps does so for a minute. Therefore everything happens at once: what `overlapping` marks
is begun before the first test, and each test waits for its own.
"""

from __future__ import annotations

import asyncio
import bisect
import math
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from roomserver.clients.wav import WavWriter
from roomserver.clients.wire import Encoding, Frame
from support.api_client import Api, RoomKeys, Socket
from support.cable import Cable
from support.command import Command
from support.live import EMAIL, Capture, live_room
from support.server import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

RATE = 8000
STEP = RATE // 100  # the recording tells the time in hundredths of a second
RECORDING_S = 300
SLEEP_S = 60.0
MOMENT_S = 4.0
GRACE_S = 2.0
#: What is promised after 2 s and after 10 s must have been told by then.
KILLED_WITHIN_S = 2.0
BUFFERING_WITHIN_S = 4.0
SUSPENDED_WITHIN_S = 12.0
#: How much later than before the fault a moment may be heard after it.
MORE_DELAY_S = 1.0
#: How long what was held up on its way may be heard when it comes at last: no longer than the
#: delay when it comes at once; in pieces, for the second after which the room looks again.
STALE_S = 2.0

Part = Callable[[ServerProcess, Path], Coroutine[None, None, None]]
PARTS: dict[str, Part] = {}


def overlapping(part: Part) -> Callable[..., Coroutine[None, None, None]]:
    """Makes a test of something that happens while other things happen."""
    name = part.__name__
    PARTS[name] = part

    async def test(happening: dict[str, asyncio.Task[None]]) -> None:
        await happening[name]

    test.__name__, test.__doc__ = name, part.__doc__
    return test


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that can be reached from everywhere, and waits for a test that gets no time."""
    options = ("--host", "0.0.0.0", "--max-lag-ms", "5000", "--grace-s", "120")
    with ServerProcess.start(tmp_path_factory.mktemp("server"), *options) as process:
        process.add_user()
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def happening(
    server: ServerProcess, recording: Path, request: pytest.FixtureRequest
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """What the chosen tests are about, under way."""
    chosen = {item.name for item in request.session.items}
    tasks = {
        name: asyncio.create_task(part(server, recording), name=name)
        for name, part in PARTS.items()
        if name in chosen
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One channel whose samples say when they are to be played."""
    path: Path = tmp_path_factory.mktemp("recording") / "clock.wav"
    samples = np.arange(RECORDING_S * RATE) // STEP - 32768
    writer = WavWriter(path, 1, RATE, Encoding.S16LE)
    writer.write(samples.astype(np.int16).reshape(-1, 1))
    writer.close()
    return path


def told_time(message: object) -> float | None:
    """Which second of the recording a message brings; None when it is no frame as it was sent."""
    if not isinstance(message, Frame) or message.concealed:
        return None
    steps = message.samples[:, 0].astype(int)
    if not np.isin(np.diff(steps), (0, 1)).all():
        return None
    return float(steps[0] + 32768) / 100


@dataclass
class Hall:
    """A room with a broadcaster of the project and several kinds of listeners, who hear it."""

    listeners: list[Capture]
    start: Callable[[], Command]
    broadcaster: Command
    delay_s: float = (
        0.0  # before the fault: from when a moment is due until it is heard, + constant
    )
    fault: float = 0.0  # Unix time

    async def each(self, wait: Callable[[Capture], Coroutine[None, None, None]]) -> None:
        """Waits for something at every listener at once."""
        async with asyncio.TaskGroup() as group:
            for listener in self.listeners:
                group.create_task(wait(listener))

    async def delays(self, since: float) -> list[float]:
        """Waits until all hear the recording, and returns how late they did from `since` on."""
        delays: list[float] = []

        async def heard(listener: Capture) -> None:
            at = since_index(listener, since)
            for _ in range(25):
                at = await listener.wait_until(lambda m: told_time(m) is not None, after=at) + 1
                told = told_time(listener.messages[at - 1])
                assert told is not None
                delays.append(listener.arrived_us[at - 1] / 1e6 - told)

        await self.each(heard)
        return delays

    async def begin_fault(self) -> None:
        """What was before is measured; now something happens."""
        self.delay_s = statistics.median(await self.delays(time.time()))
        self.fault = time.time()

    async def are_told(self, kind: str, *, within_s: float, **fields: object) -> None:
        """Waits until all are told, and checks that it was soon enough after the fault."""
        expected = {"type": kind, **fields}

        async def told(listener: Capture) -> None:
            index = await listener.wait_until(
                lambda m: isinstance(m, dict) and expected.items() <= m.items(),
                after=since_index(listener, self.fault),
            )
            took = listener.arrived_us[index] / 1e6 - self.fault
            assert took <= within_s, f"{expected} came after {took:.2f} s"

        await self.each(told)

    async def hear_again(self, since: float, *, stale_s: float = 0.0) -> None:
        """Waits until all hear the present moment again, and checks that they stay with it.

        They do over the connections they had: a `Capture` has one, and its end fails the test.
        For at most `stale_s` they may hear what was held up on its way, before.
        """

        async def caught_up(listener: Capture) -> None:
            def heard(message: object) -> bool:
                return told_time(message) is not None

            first = at = await listener.wait_until(heard, after=since_index(listener, since))
            while self.late(listener, at) > MORE_DELAY_S:
                at = await listener.wait_until(heard, after=at + 1)
                took = (listener.arrived_us[at] - listener.arrived_us[first]) / 1e6
                assert took <= stale_s, f"{self.late(listener, at):.2f} s late after {took:.2f} s"
            for _ in range(25):
                at = await listener.wait_until(heard, after=at + 1)
                assert self.late(listener, at) <= MORE_DELAY_S

        await self.each(caught_up)

    def late(self, listener: Capture, index: int) -> float:
        """How much later than before the fault the moment is heard that a message tells."""
        told = told_time(listener.messages[index])
        assert told is not None
        return listener.arrived_us[index] / 1e6 - told - self.delay_s


def since_index(listener: Capture, moment: float) -> int:
    """Number of the first message that came at this Unix time or later."""
    return bisect.bisect_left(listener.arrived_us, moment * 1e6)


@asynccontextmanager
async def hall(
    server: ServerProcess, recording: Path, prefix: Sequence[str] = (), host: str = "127.0.0.1"
) -> AsyncIterator[Hall]:
    """A room that is heard; its broadcaster runs behind `prefix` and knows the server as `host`."""
    port = urlsplit(server.url).port
    async with live_room(f"http://127.0.0.1:{port}") as room, AsyncExitStack() as stack:

        def start() -> Command:
            arguments = (
                str(recording),
                "--room",
                room.code,
                "--email",
                EMAIL,
                "--buffer-ms",
                "200",
            )
            url = f"http://{host}:{port}"
            return stack.enter_context(
                closing(Command(url, "broadcast", *arguments, prefix=prefix))
            )

        listeners = [
            await stack.enter_async_context(room.listen(**fields))
            for fields in (
                {},
                {"mode": "mix", "mix": {"pans": [-1]}, "levels": True},
                {"intervalMs": 60},
            )
        ]
        yield Hall(listeners, start, start())


@overlapping
async def test_a_killed_broadcaster_is_told_at_once_and_the_next_one_is_heard(
    server: ServerProcess, recording: Path
) -> None:
    async with hall(server, recording) as it:
        await it.begin_fault()
        it.broadcaster.signal_group(signal.SIGKILL)
        await it.are_told("roomSuspended", within_s=KILLED_WITHIN_S)
        await it.are_told("roomStatus", within_s=KILLED_WITHIN_S + 1, state="suspended")
        began = time.time()
        it.start()
        await it.are_told("roomResumed", within_s=math.inf)
        await it.are_told("streamStarted", within_s=math.inf, stream=2)
        await it.delays(began)  # which are other ones: this recording began later


@overlapping
async def test_a_broadcaster_behind_a_cut_cable_is_given_up_and_comes_back(
    server: ServerProcess, recording: Path
) -> None:
    with Cable() as cable:
        async with hall(server, recording, cable.prefix, cable.host) as it:
            await it.begin_fault()
            cable.cut()
            await it.are_told("roomStatus", within_s=BUFFERING_WITHIN_S, buffering=True)
            await it.are_told("roomSuspended", within_s=SUSPENDED_WITHIN_S)
            joined = time.time()
            cable.join()
            await it.are_told("roomResumed", within_s=math.inf)
            await it.hear_again(joined)


@overlapping
async def test_a_cable_cut_for_a_moment_costs_that_moment_and_no_delay(
    server: ServerProcess, recording: Path
) -> None:
    with Cable() as cable:
        async with hall(server, recording, cable.prefix, cable.host) as it:
            await it.begin_fault()
            cable.cut()
            await it.are_told("roomStatus", within_s=BUFFERING_WITHIN_S, buffering=True)
            await asyncio.sleep(it.fault + MOMENT_S - time.time())
            joined = time.time()
            cable.join()
            # What the broadcaster had sent arrives in a burst, seconds late.
            await it.hear_again(joined, stale_s=STALE_S)
            assert not any(listener.texts("roomSuspended") for listener in it.listeners)


@overlapping
async def test_a_broadcaster_that_wakes_after_the_grace_period_finds_the_room_closed(
    server: ServerProcess, recording: Path
) -> None:
    directory = server.data_dir / "impatient"
    impatient = await asyncio.to_thread(ServerProcess.start, directory, "--grace-s", str(GRACE_S))
    async with AsyncExitStack() as stack:
        stack.enter_context(impatient)
        impatient.add_user()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        api = Api(impatient.url, session)
        room = await api.create_room((await api.login())["accessToken"])
        listeners = [await stack.enter_async_context(api.listener(room)) for _ in range(3)]
        arguments = (str(recording), "--room", room.code, "--email", EMAIL)
        broadcaster = stack.enter_context(closing(Command(impatient.url, "broadcast", *arguments)))
        await asyncio.gather(*(listener.frames(10) for listener in listeners))
        broadcaster.signal_group(signal.SIGSTOP)
        await asyncio.gather(*(is_told_the_end(listener, room) for listener in listeners))
        broadcaster.signal_group(signal.SIGCONT)
        assert await asyncio.to_thread(broadcaster.end) == 1
        assert "the room was closed" in broadcaster.said


async def is_told_the_end(listener: Socket, room: RoomKeys) -> None:
    """Waits until the grace period is over, and checks what a listener is told of it."""
    suspended = await listener.until("roomSuspended")
    left_s = suspended["suspendedUntil"] / 1e6 - time.time()
    assert GRACE_S - 1 <= left_s <= GRACE_S
    closed = await listener.until("roomClosed")
    assert closed == {"type": "roomClosed", "roomId": room.id, "reason": "source_gone"}
    assert time.time() >= suspended["suspendedUntil"] / 1e6 - 0.1
    assert (await listener.closed()).code == 4410


@overlapping
async def test_a_broadcaster_asleep_for_a_minute_goes_on_at_the_present_moment(
    server: ServerProcess, recording: Path
) -> None:
    """Its process alone: the machine answers for it, and takes in what is sent to it."""
    async with hall(server, recording) as it:
        await sleep_and_wake(
            it,
            lambda: it.broadcaster.signal_group(signal.SIGSTOP),
            lambda: it.broadcaster.signal_group(signal.SIGCONT),
        )


@overlapping
async def test_a_machine_asleep_for_a_minute_goes_on_at_the_present_moment(
    server: ServerProcess, recording: Path
) -> None:
    """Nothing leaves it and nothing reaches it, not even the end of its connection."""
    with Cable() as cable:
        async with hall(server, recording, cable.prefix, cable.host) as it:

            def fall_asleep() -> None:
                cable.cut()
                it.broadcaster.signal_group(signal.SIGSTOP)

            def wake() -> None:
                cable.join()
                it.broadcaster.signal_group(signal.SIGCONT)

            await sleep_and_wake(it, fall_asleep, wake)


async def sleep_and_wake(
    it: Hall, fall_asleep: Callable[[], None], wake: Callable[[], None]
) -> None:
    """A minute in which the broadcaster does nothing, what listeners are told, and its end."""
    await it.begin_fault()
    fall_asleep()
    await it.are_told("roomStatus", within_s=BUFFERING_WITHIN_S, buffering=True)
    await it.are_told("roomSuspended", within_s=SUSPENDED_WITHIN_S)
    await asyncio.sleep(it.fault + SLEEP_S - time.time())
    awake = time.time()
    wake()
    await it.are_told("roomResumed", within_s=math.inf)
    await it.hear_again(awake)

"""Read from /proc and git: what ran where, what it used, and what else was running."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Self

import relaycore
from benchmarks import natives
from benchmarks.child import ROOT

PROC = Path("/proc")
WATCH_S = 0.1
"""Between two looks at memory."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def describe() -> dict[str, Any]:
    """Machine, versions and commit: what a result means nothing without."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": _field(PROC / "cpuinfo", "model name") or platform.processor(),
            "simd": relaycore.simd(),
            "cores": os.cpu_count(),
            "memory_gib": round(_kib(PROC / "meminfo", "MemTotal") / 2**20, 1),
            "nice": niceness(),
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "compiler": _compiler(),
            **{name: _version(name) for name in ("relaycore", "numpy", "aiohttp", "uvloop")},
        },
    }


def raise_descriptor_limit() -> int:
    """For this process and those it starts: every connection is a descriptor. Returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def commit() -> str:
    """Short hash of the work tree's commit, with a mark when it was changed since."""
    try:
        name = _first_line(["git", "rev-parse", "--short=12", "HEAD"])
        changed = _first_line(["git", "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}+changes" if changed else name


def niceness() -> int:
    """What this runs at: of its session, where the kernel shares out time by sessions first."""
    try:
        enabled = (PROC / "sys" / "kernel" / "sched_autogroup_enabled").read_text().strip()
        if enabled == "1":
            return int((PROC / "self" / "autogroup").read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        pass  # a kernel without them
    return os.nice(0)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    return pages * PAGE_BYTES


class ProportionalMemory(NamedTuple):
    """Memory of processes that share some of it, which counts once (PSS), bytes.

    `buffers` is what they have touched so far of memory that they set up to share, as a database
    does when it starts; `own` all the rest.
    """

    own: int = 0
    buffers: int = 0


def proportional_memory(pids: Sequence[int]) -> ProportionalMemory:
    """Memory of these processes together.

    Raises PermissionError where it may not be read.
    """
    own = buffers = 0
    for pid in pids:
        try:
            rollup = PROC / str(pid) / "smaps_rollup"
            shared = _kib(rollup, "Pss_Shmem")
            own += _kib(rollup, "Pss") - shared
            buffers += shared
        except (FileNotFoundError, ProcessLookupError):
            pass  # it ended meanwhile
        except PermissionError:
            # As the database of a server that root started, which has an account of its own.
            raise PermissionError(
                f"the memory of process {pid} ({_comm(PROC / str(pid))}) may not be read: it runs "
                "as another account, and CAP_SYS_PTRACE is missing; run this as an account other "
                "than root, or with that capability (Docker: --cap-add SYS_PTRACE)"
            ) from None
    return ProportionalMemory(own * 1024, buffers * 1024)


def disk_bytes(folder: Path) -> int:
    """What all files of a folder take on the disk."""
    blocks = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it went meanwhile
                blocks += Path(parent, name).lstat().st_blocks
    return blocks * 512


def descendants(pid: int) -> list[int]:
    """Processes that this one started, and those that they did, as of now."""
    parents: dict[int, int] = {}
    for process in PROC.iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                stat = (process / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(process.name)] = int(stat[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def cpu_seconds_of_live_threads(pids: Sequence[int]) -> float:
    """CPU time of the threads that processes have now; of one that has ended it is forgotten."""
    return sum(_scheduled_s(task) for pid in pids for task in (PROC / str(pid) / "task").glob("*"))


def main_thread_seconds(pid: int) -> float:
    """CPU time of a process's first thread, in which an event loop runs."""
    return _scheduled_s(PROC / str(pid) / "task" / str(pid))


def tcp_buffer_bytes() -> int:
    """Memory the kernel holds in TCP buffers: of all sockets here, at both ends of each."""
    for line in (PROC / "net" / "sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            fields = line.split()
            return int(fields[fields.index("mem") + 1]) * PAGE_BYTES
    return 0


@dataclass(slots=True)
class Memory:
    """The most that was seen, bytes: of a process, and of the kernel's TCP buffers."""

    resident: int = 0
    tcp_buffers: int = 0


@contextlib.contextmanager
def watched_memory(pid: int) -> Iterator[Memory]:
    """Looks at memory again and again: buffers are full at one moment and empty at the next."""
    most = Memory()
    over = threading.Event()

    def look() -> None:
        most.resident = max(most.resident, resident_bytes(pid))
        most.tcp_buffers = max(most.tcp_buffers, tcp_buffer_bytes())

    def watch() -> None:
        while not over.wait(WATCH_S):
            look()

    look()
    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


class Cores(NamedTuple):
    """Cores used by a subject, by the load client, and by everything else."""

    server: float
    client: float
    others: float


@dataclass(frozen=True, slots=True)
class CpuSnapshot:
    """CPU times since boot or start, seconds.

    `threads` are those of one process by name; `machine` is everything that ran on all cores;
    `softirq_threads` is network work that the kernel moved out of the process that caused it;
    `descendants` are the processes that it started, as a server its database, by their ids.
    """

    threads: dict[str, float]
    machine: float
    softirq_threads: float
    descendants: dict[int, float] = field(default_factory=dict)

    @property
    def outside(self) -> float:
        """What was used on behalf of the process, but not in it."""
        return self.softirq_threads + sum(self.descendants.values())

    @classmethod
    def take(cls, pid: int) -> Self:
        """Of process `pid` and the machine, now."""
        threads: dict[str, float] = {}
        for task in (PROC / str(pid) / "task").iterdir():
            name = (task / "comm").read_text().strip()
            threads[name] = threads.get(name, 0.0) + _scheduled_s(task)
        total = [int(x) for x in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = sum(total) - total[3] - total[4]  # less idle and waiting for a disk
        return cls(
            threads,
            busy / TICKS_PER_S,
            sum(_scheduled_s(PROC / str(pid)) for pid in _softirq_threads()),
            # One that ends just then has none any more.
            {
                child: used
                for child in descendants(pid)
                if (used := cpu_seconds_of_live_threads([child])) > 0
            },
        )

    def since(self, before: CpuSnapshot) -> CpuSnapshot:
        """What was used between the two, by whatever is still there."""
        return CpuSnapshot(
            {k: round(v - before.threads.get(k, 0.0), 6) for k, v in self.threads.items()},
            round(self.machine - before.machine, 6),
            round(self.softirq_threads - before.softirq_threads, 6),
            {k: round(v - before.descendants.get(k, 0.0), 6) for k, v in self.descendants.items()},
        )

    def cores(self, *, server_s: float, client_s: float, seconds: float) -> Cores:
        """Who used the cores in an interval of which this is the difference.

        server_s, client_s: CPU time of the processes of each. What the subject's process started,
        and network work that the kernel did in threads of its own, counts as the subject's.
        """
        server_s += self.outside
        others_s = max(0.0, self.machine - server_s - client_s)
        return Cores(server_s / seconds, client_s / seconds, others_s / seconds)


def _softirq_threads() -> list[int]:
    found = []
    for core in range(os.cpu_count() or 1):
        pid = _SOFTIRQ_PIDS.get(core)
        if pid is None:
            pid = _SOFTIRQ_PIDS[core] = next(
                (
                    int(p.name)
                    for p in PROC.iterdir()
                    if p.name.isdigit() and _comm(p) == f"ksoftirqd/{core}"
                ),
                0,
            )
        if pid:
            found.append(pid)
    return found


_SOFTIRQ_PIDS: dict[int, int] = {}


def _comm(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""  # it ended meanwhile


def _scheduled_s(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _kib(path: Path, name: str) -> int:
    return int((_field(path, name) or "0").split()[0])


def _first_line(command: list[str]) -> str:
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=10)
    return out.stdout.split("\n", 1)[0]


def _compiler() -> str:
    try:
        return _first_line([natives.compiler(), "--version"])
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

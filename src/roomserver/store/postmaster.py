"""What PostgreSQL tells of itself beside its data, and whether it is there at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Postmaster(NamedTuple):
    """What PostgreSQL writes into its lock file."""

    pid: int
    socket_dir: str
    state: str

    def is_ready(self, pid: int) -> bool:
        """Whether it is this process, and accepts connections."""
        return (self.pid, self.state) == (pid, "ready")


def read_postmaster(cluster: Path) -> Postmaster | None:
    """Whoever says that the cluster is its own."""
    try:
        lines = (cluster / "postmaster.pid").read_text("utf-8").splitlines()
        return Postmaster(int(lines[0]), lines[4], lines[7].strip() if len(lines) > 7 else "")
    except (OSError, ValueError, IndexError):
        return None


def in_use(cluster: Path) -> bool:
    """Whether a process works in the cluster: PostgreSQL's all do, with it as their folder."""
    if not Path("/proc/self/cwd").exists():
        return False  # macOS: PostgreSQL's own check has to do
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == cluster:
                return True
    return False

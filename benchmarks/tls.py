"""What TLS costs, and how many listeners a server that speaks it itself can have."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import machine, scenarios, subjects
from benchmarks.child import Child, ChildError
from benchmarks.load import LoadClient, LoadError, Target
from benchmarks.scenarios import CpuResult, Progress, Spread
from benchmarks.subjects import Subject
from benchmarks.workload import Workload

FIRST: Final = 100
"""Listeners that a ramp begins with."""
GROWTH: Final = 1.15
QUICK_GROWTH: Final = 1.5
MOST: Final = 4000
"""Listeners that a ramp ends with, if nothing else does."""
IN_FLIGHT: Final = 8
"""Handshakes at a time while a stream flows: a crowd at the door is another question."""
DUE: Final = 0.99
"""Share of the frames due that has to come in an interval, whose edges lie anywhere."""
JOIN_TIMEOUT_S: Final = 20.0
START_TIMEOUT_S: Final = 20.0

NGINX_CONF: Final = """
daemon off;
master_process off;
{user}
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://unix:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_buffering off;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key (P-256, as most are now)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "cert.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


@contextmanager
def _certificate() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="bench-tls-") as directory:
        yield write_certificate(Path(directory))


@contextmanager
def floor(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """A C loop that calls SSL_write() with the same bytes on every connection."""
    with (
        _certificate() as certificate,
        subjects.send_floor(workload, max_seconds, certificate=certificate) as target,
    ):
        yield target


@contextmanager
def in_process(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """`roomserver serve` that speaks TLS itself."""
    with _certificate() as (chain, key):
        options = ("--tls-cert", str(chain), "--tls-key", str(key))
        with subjects.running_server(workload, max_seconds, options=options) as running:
            yield running.target


@contextmanager
def behind_nginx(workload: Workload, max_seconds: int) -> Iterator[Target]:
    """`roomserver serve` on a Unix socket, nginx with one process in front, as in the manual."""
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as name:
        directory = Path(name)
        upstream = directory / "http.sock"

        @contextmanager
        def front(_: str) -> Iterator[tuple[str, Sequence[int]]]:
            with _nginx(directory, upstream) as (url, pid):
                yield url, [pid]

        options = ("--unix-socket", str(upstream))
        with subjects.running_server(
            workload, max_seconds, options=options, front=front
        ) as running:
            yield running.target


@contextmanager
def _nginx(directory: Path, upstream: Path) -> Iterator[tuple[str, int]]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("there is no nginx here (Debian's package nginx)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    chain, key = write_certificate(directory)
    conf = directory / "nginx.conf"
    # As root it would go on as somebody who may not use the socket.
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(
        NGINX_CONF.format(
            directory=directory, port=port, chain=chain, key=key, upstream=upstream, user=user
        )
    )
    with Child([program, "-p", directory, "-c", conf], events_on_stderr=True) as child:
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > end:
                    child.expect("listening", 0)  # raises, with what it said
                time.sleep(0.05)
        try:
            yield f"https://127.0.0.1:{port}", child.pid
        finally:
            child.terminate()


SUBJECTS: Final[Mapping[str, Subject]] = {
    "floor": floor,
    "plain": subjects.server,
    "tls": in_process,
    "nginx": behind_nginx,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What so many listeners of a subject got in one interval; cores used by whom.

    `missing` are frames passed over in the sequence of some listener, `lost` connections.
    """

    subject: str
    round: int
    listeners: int
    frames: int
    due: int
    missing: int
    lost: int
    p99_ms: float
    server: float
    client: float
    others: float

    @property
    def kept_up(self) -> bool:
        """Whether every listener got every frame due."""
        return self.missing == 0 and self.lost == 0 and self.frames >= DUE * self.due


@dataclass(frozen=True, slots=True)
class LimitRow:
    """The greatest number of listeners that got all frames due; `open` if more were not tried."""

    subject: str
    limit: Spread
    open: bool


@dataclass(frozen=True, slots=True)
class CostRow:
    """Medians over the rounds: µs per delivered frame, cores used; ratios paired by round."""

    subject: str
    us_per_frame: float
    over_plain: Spread | None
    over_floor: Spread | None
    delivered: float
    p50_ms: float
    p99_ms: float
    client: float
    others: float


@dataclass(frozen=True, slots=True)
class TlsResult:
    """Cost of TLS, and the listeners it leaves room for."""

    cost: CpuResult
    steps: list[Step] = field(default_factory=list)

    def cost_rows(self) -> list[CostRow]:
        """One row a subject."""
        return [
            CostRow(
                row.subject,
                row.us_per_frame,
                self.cost.ratio(row.subject, "plain"),
                self.cost.ratio(row.subject, "floor"),
                row.delivered,
                row.p50_ms,
                row.p99_ms,
                row.client,
                row.others,
            )
            for row in self.cost.rows()
        ]

    def limit_rows(self) -> list[LimitRow]:
        """One row a subject that was ramped."""

        def row(subject: str) -> LimitRow:
            rounds: dict[int, list[Step]] = {}
            for step in self.steps:
                if step.subject == subject:
                    rounds.setdefault(step.round, []).append(step)
            limits = [
                max((step.listeners for step in steps if step.kept_up), default=0)
                for steps in rounds.values()
            ]
            return LimitRow(
                subject, Spread.of(limits), any(steps[-1].kept_up for steps in rounds.values())
            )

        return [row(subject) for subject in dict.fromkeys(step.subject for step in self.steps)]

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        cost = self.cost.as_json()
        return cost | {
            "scenario": "tls",
            "summary": [asdict(row) for row in self.cost_rows()],
            "limit_rounds": max((step.round for step in self.steps), default=-1) + 1,
            "limits": [asdict(row) for row in self.limit_rows()],
            "steps": [asdict(step) | {"kept_up": step.kept_up} for step in self.steps],
        }


def tls(
    workload: Workload,
    names: Sequence[str],
    *,
    rounds: int,
    limit_rounds: int,
    seconds: float,
    most: int,
    growth: float,
    progress: Progress,
) -> TlsResult:
    """Measures CPU per delivered frame, then the listener limit of what speaks TLS in a server."""
    ramped = [name for name in names if name in ("tls", "nginx")]
    share = 0.5 if ramped else 1.0
    result = TlsResult(
        scenarios.cpu(
            workload,
            names,
            rounds=rounds,
            seconds=seconds,
            progress=lambda what, done: progress(what, done * share),
            known=SUBJECTS,
        )
    )
    for number in range(limit_rounds):
        for i, name in enumerate(ramped):
            done = share + (1 - share) * (number * len(ramped) + i) / (limit_rounds * len(ramped))

            def tell(listeners: int, name: str = name, done: float = done) -> None:
                progress(f"limit of {name}: {listeners}", done)

            result.steps.extend(
                ramp(name, number, workload, seconds=seconds, most=most, growth=growth, tell=tell)
            )
    progress("done", 1.0)
    return result


def ramp(
    name: str,
    number: int,
    workload: Workload,
    *,
    seconds: float,
    most: int,
    growth: float,
    tell: Callable[[int], None],
) -> Iterator[Step]:
    """More and more listeners, until frames due did not come twice in a row."""
    counts = [min(FIRST, most)]
    while counts[-1] < most:
        counts.append(min(most, round(counts[-1] * growth)))
    max_seconds = round(len(counts) * 2 * (seconds + 10)) + scenarios.SPARE_S
    with (
        SUBJECTS[name](workload, max_seconds) as target,
        LoadClient(target, max_seconds=max_seconds, in_flight=IN_FLIGHT) as load,
    ):
        for count in counts:
            tell(count)
            for _ in range(2):
                step = _step(name, number, count, workload, load, target, seconds)
                yield step
                if step.kept_up:
                    break
                if not step.frames:
                    return
            else:
                return


def _step(
    name: str,
    number: int,
    count: int,
    workload: Workload,
    load: LoadClient,
    target: Target,
    seconds: float,
) -> Step:
    try:
        load.join(count, JOIN_TIMEOUT_S)
        load.wait_for_frames(max(1, round(scenarios.SETTLE_S * workload.frames_per_s)))
    except (LoadError, ChildError):  # the door is blocked, or nothing comes
        due = round(count * workload.frames_per_s * seconds)
        return Step(name, number, count, 0, due, 0, 0, 0.0, 0.0, 0.0, 0.0)
    before = machine.CpuSnapshot.take(target.pid)
    got = load.measure(seconds)
    whole = machine.CpuSnapshot.take(target.pid).since(before).machine
    used = got.server_cpu_s + got.client_cpu_s
    return Step(
        name,
        number,
        count,
        got.frames,
        round(count * workload.frames_per_s * got.seconds),
        got.missing,
        got.lost,
        got.delay_ms.p99,
        round(got.server_cpu_s / got.seconds, 4),
        round(got.client_load, 4),
        round(max(0.0, whole - used) / got.seconds, 4),
    )

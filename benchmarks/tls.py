"""What TLS costs, and how many listeners a server that speaks it itself can have."""

from __future__ import annotations

import datetime
import ipaddress
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import nginx, scenarios, subjects
from benchmarks.failures import Failure
from benchmarks.load import Target
from benchmarks.ramp import Climb, Limit, Ramps, by_turns, limits
from benchmarks.scenarios import CpuResult, Progress, Spread
from benchmarks.subjects import Subject
from benchmarks.workload import Workload

FIRST: Final = 100
"""Listeners that a ramp begins with."""
GROWTH: Final = 1.15
"""A step's listeners over those of the one before: as fine as limits can be told."""
QUICK_GROWTH: Final = 1.5
MOST: Final = 4000
"""Listeners that a ramp ends with, if nothing else does."""
NGINX_HTTP: Final = """
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
            proxy_buffer_size 12k;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
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
        with subjects.running_server(
            workload, max_seconds, database="embedded", options=options
        ) as running:
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
            workload, max_seconds, database="embedded", options=options, front=front
        ) as running:
            yield running.target


@contextmanager
def _nginx(directory: Path, upstream: Path) -> Iterator[tuple[str, int]]:
    port = nginx.free_port()
    chain, key = write_certificate(directory)
    http = NGINX_HTTP.format(port=port, chain=chain, key=key, upstream=upstream)
    with nginx.nginx(directory, http, port) as child:
        yield f"https://127.0.0.1:{port}", child.pid


SUBJECTS: Final[Mapping[str, Subject]] = {
    "floor": floor,
    "plain": subjects.server,
    "tls": in_process,
    "nginx": behind_nginx,
}


@dataclass(frozen=True, slots=True)
class CostRow:
    """Medians over the rounds: µs per delivered frame, cores used; ratios to the nearest run.

    `front_us_per_frame` is what of it nginx used, 0 without one; `lost` are connections.
    """

    subject: str
    us_per_frame: float
    front_us_per_frame: float
    over_plain: Spread | None
    over_floor: Spread | None
    delivered: float
    lost: int
    p50_ms: float
    p99_ms: float
    client: float
    others: float


@dataclass(frozen=True, slots=True)
class TlsResult:
    """Cost of TLS, and the listeners it leaves room for."""

    cost: CpuResult
    ramps: Ramps = field(default_factory=Ramps)
    growth: float = GROWTH

    def cost_rows(self) -> list[CostRow]:
        """One row a subject."""
        return [
            CostRow(
                row.subject,
                row.us_per_frame,
                self._front_us_per_frame(row.subject),
                self.cost.ratio(row.subject, "plain"),
                self.cost.ratio(row.subject, "floor"),
                row.delivered,
                row.lost,
                row.p50_ms,
                row.p99_ms,
                row.client,
                row.others,
            )
            for row in self.cost.rows()
        ]

    def _front_us_per_frame(self, subject: str) -> float:
        measured = [sample.measured for sample in self.cost.of(subject)]
        each = [m.more_cpu_s * 1e6 / m.frames for m in measured if m.frames]
        return round(statistics.median(each), 4) if each else 0.0

    def limit_rows(self) -> list[Limit]:
        """One row a subject that was ramped."""
        return limits(self.ramps)

    def as_json(self) -> dict[str, Any]:
        """Summary and raw results."""
        cost, ramps = self.cost.as_json(), self.ramps.as_json()
        return cost | {
            "scenario": "tls",
            "summary": [asdict(row) for row in self.cost_rows()],
            "limit_rounds": max((step.round for step in self.ramps.steps), default=-1) + 1,
            "limit_growth": self.growth,
            "limits": [asdict(row) for row in self.limit_rows()],
            "steps": ramps["steps"],
            "failures": cost["failures"] + ramps["failures"],
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
    cost = scenarios.cpu(
        workload,
        names,
        rounds=rounds,
        seconds=seconds,
        progress=lambda what, done: progress(what, done * share),
        known=SUBJECTS,
    )
    if not ramped:
        return TlsResult(cost, growth=growth)
    try:
        ramps = by_turns(
            [Climb(name, SUBJECTS[name], workload) for name in ramped],
            rounds=limit_rounds,
            seconds=seconds,
            first=FIRST,
            most=most,
            growth=growth,
            progress=lambda what, done: progress(f"limit of {what}", share + (1 - share) * done),
        )
    except RuntimeError as error:  # the cost is known all the same
        ramps = Ramps(failures=[Failure.of("every ramp", error)])
    return TlsResult(cost, ramps, growth)

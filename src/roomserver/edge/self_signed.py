"""A certificate of the server's own, for halls without a name in the DNS.

Browsers let pages use the microphone and the audio thread in a secure context alone, and that is no
`http://192.168...`. Nobody vouches for this certificate, so each browser warns once; whoever
compares the fingerprint knows that it is this server.

It is made with `cryptography`, which is here for tokens already, rather than by a program `openssl`
that not every system has.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roomserver.config import ConfigError

LIFE = datetime.timedelta(days=397)  # browsers believe in no longer one
REST = datetime.timedelta(days=30)  # with less than this left a start makes another
CLOCKS = datetime.timedelta(hours=1)  # by which a client's clock may be slow
_SIOCGIFADDR = 0x8915
_IPV6_INTERFACES = Path("/proc/net/if_inet6")
_TEMPORARY = 0x01
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """Where it is kept (PEM), and its SHA-256 fingerprint as browsers show it."""

    certificate: Path
    key: Path
    fingerprint: str


def self_signed(directory: Path, names: Iterable[str]) -> SelfSigned:
    """The certificate kept in `directory`, made if there is none that serves any more.

    names: host names and addresses that it has to be for. One that is kept and lacks some of them,
    or is over soon, is replaced; the key stays.

    Raises ConfigError when the files can't be read or written.
    """
    wanted = frozenset(names)
    kept = SelfSigned(directory / "certificate.pem", directory / "key.pem", "")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        key = _kept_key(kept.key)
        certificate = _kept_certificate(kept.certificate, key, wanted)
        if certificate is None:
            certificate = _make(key, wanted)
            _write(kept.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"self-signed certificate in {directory}: {error}") from None
    digest = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return SelfSigned(kept.certificate, kept.key, digest)


def own_addresses() -> list[str]:
    """The addresses by which others may reach this machine, those of the loopback left out."""
    found: list[Address] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # it has no IPv4 address
            found.append(ipaddress.IPv4Address(answer[20:24]))
    if _IPV6_INTERFACES.exists():
        for line in _IPV6_INTERFACES.read_text().splitlines():
            address, _, _, _, flags, _ = line.split()
            if not int(flags, 16) & _TEMPORARY:  # of a day, for calls that go out
                found.append(ipaddress.IPv6Address(bytes.fromhex(address)))
    return [
        str(address)
        for address in found
        if not address.is_loopback and address not in _LINK_LOCAL  # which needs a zone
    ]


def own_names() -> list[str]:
    """What this machine may be called, on itself and by others."""
    host = socket.gethostname().lower()
    called = {"localhost", host, socket.getfqdn().lower(), f"{host.partition('.')[0]}.local"}
    return sorted(name for name in called if _is_dns_name(name))


def _is_dns_name(name: str) -> bool:
    return name.isascii() and 0 < len(name) < 64 and "_" not in name and " " not in name


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        data = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write(path, data)
        return key
    loaded = serialization.load_pem_private_key(data, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not a key of ours; remove it to have one made")
    return loaded


def _kept_certificate(
    path: Path, key: ec.EllipticCurvePrivateKey, wanted: frozenset[str]
) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    now = datetime.datetime.now(datetime.UTC)
    serves = (
        certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc - now > REST
        and certificate.not_valid_before_utc < now
        and wanted <= _names_of(certificate)
    )
    return certificate if serves else None


def _names_of(certificate: x509.Certificate) -> frozenset[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return frozenset([*names.get_values_for_type(x509.DNSName), *map(str, addresses)])


def _make(key: ec.EllipticCurvePrivateKey, names: frozenset[str]) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roomserver")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(list(map(_name, sorted(names)))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and for nobody else's eyes."""
    aside = path.with_suffix(".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)

"""`roomserver serve --tls-self-signed`: a certificate made once and good for this host."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from roomserver.config import ConfigError, load_settings
from roomserver.edge.self_signed import own_addresses, own_names, self_signed
from support.server import ServerProcess


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[tuple[ServerProcess, str]]:
    """A server, and the fingerprint it tells."""
    with ServerProcess.start(directory, "--tls-self-signed", *options) as server:
        told = server.wait_for_event("self_signed_certificate")
        assert told["open"], told
        yield server, told["fingerprint"]


def shown(server: ServerProcess) -> x509.Certificate:
    """The certificate that a client of the server is shown."""
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    pem = ssl.get_server_certificate((address.hostname, address.port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode())


async def test_it_is_made_once_and_its_fingerprint_told(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, fingerprint):
        assert server.url.startswith("https://")
        assert shown(server).fingerprint(hashes.SHA256()).hex(":").upper() == fingerprint
        context = ssl.create_default_context(cafile=str(tmp_path / "tls" / "certificate.pem"))
        async with (
            aiohttp.ClientSession() as session,
            session.get(server.url, ssl=context) as answer,
        ):
            assert answer.status == 200
    for file in (tmp_path / "tls").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    with serving(tmp_path) as (server, again):
        assert again == fingerprint


def test_it_is_for_every_name_and_address_of_the_machine(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--public-url", "https://hall.example.org") as (
        server,
        _,
    ):
        names = shown(server).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        told = server.wait_for_event("self_signed_certificate")["open"]
    assert {"localhost", "hall.example.org", *own_names()} <= {
        *names.get_values_for_type(x509.DNSName)
    }
    addresses = {*map(str, names.get_values_for_type(x509.IPAddress))}
    assert {"127.0.0.1", *own_addresses()} <= addresses
    assert not {"0.0.0.0", "::"} & addresses
    assert all("0.0.0.0" not in url for url in told)


def test_another_address_makes_another_certificate_of_the_same_key(tmp_path: Path) -> None:
    first = self_signed(tmp_path / "tls", ["localhost"])
    key = first.key.read_bytes()
    assert self_signed(tmp_path / "tls", ["localhost"]) == first
    second = self_signed(tmp_path / "tls", ["localhost", "192.0.2.7"])
    assert second.fingerprint != first.fingerprint
    assert second.key.read_bytes() == key
    # It still serves who moved back.
    assert self_signed(tmp_path / "tls", ["localhost"]) == second


def test_a_certificate_that_is_not_of_the_key_is_replaced(tmp_path: Path) -> None:
    first = self_signed(tmp_path / "tls", ["localhost"])
    first.key.unlink()
    second = self_signed(tmp_path / "tls", ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(second.certificate, second.key)


def test_files_that_are_no_key_are_an_error_that_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "tls"
    directory.mkdir()
    (directory / "key.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="self-signed certificate in"):
        self_signed(directory, ["localhost"])


def test_it_is_instead_of_a_certificate_that_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="instead of"):
        load_settings(tls_self_signed=True, tls_cert=tmp_path / "c", tls_key=tmp_path / "k")

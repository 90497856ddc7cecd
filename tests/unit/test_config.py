"""Settings: one definition for command line, environment and file."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from roomserver.cli import app
from roomserver.commands.serve import NOT_ON_COMMAND_LINE
from roomserver.config import ConfigError, Settings, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "ROOMSERVER_CONFIG", "ROOMSERVER_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "roomserver.toml"
    path.write_text(text)
    return path


def test_command_line_beats_environment_beats_file_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml(tmp_path, "grace_s = 1\nmax_lag_ms = 100\nport = 1")
    monkeypatch.setenv("ROOMSERVER_MAX_LAG_MS", "200")
    monkeypatch.setenv("ROOMSERVER_PORT", "2")
    settings = load_settings(path, port=3)
    assert (settings.grace_s, settings.max_lag_ms, settings.port) == (1, 200, 3)
    assert settings.evict_after_s == 15
    assert settings.has_private_database


def test_the_platforms_port_is_honoured_and_opens_all_interfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "1234")
    settings = load_settings(toml(tmp_path, "port = 9"))
    assert (settings.host, settings.port) == ("0.0.0.0", 1234)
    monkeypatch.setenv("ROOMSERVER_PORT", "4321")
    monkeypatch.setenv("ROOMSERVER_HOST", "127.0.0.1")
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 4321)


def test_the_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOMSERVER_CONFIG", str(toml(tmp_path, "grace_s = 7")))
    assert load_settings().grace_s == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('unix_socket_mode = "rw"', "unix_socket_mode: must be three octal digits, like 660"),
        ("prot = 1", "unknown key 'prot' (did you mean 'port'?)"),
        ("port = 70000", "port: "),
        ("port = ", "roomserver.toml"),
        ('database_url = "mysql://u:hidden@h/d"', "begins with postgresql://"),
        ('secret = "short-hidden"', "at least 32"),
        ('trusted_proxies = ["nonsense"]', "trusted_proxies"),
        ('login_limit = "many"', "login_limit"),
        ('tls_cert = "a.pem"', "needed together"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(toml(tmp_path, text))
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_addresses_with_a_password_are_not_shown_with_the_settings() -> None:
    settings = load_settings(
        database_url="postgresql://u:hidden@h/d", limits_url="redis://u:hidden@h"
    )
    assert "hidden" not in repr(settings)
    assert settings.database_url.get_secret_value() == "postgresql://u:hidden@h/d"
    assert settings.limits_url.get_secret_value() == "redis://u:hidden@h"


def test_defaults_are_what_validation_makes_of_them() -> None:
    assert dict(Settings.model_construct()) == dict(load_settings())


def test_unknown_environment_variables_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMSERVER_MAX_LAGMS", "1")
    with pytest.raises(ConfigError, match="did you mean 'ROOMSERVER_MAX_LAG_MS'"):
        load_settings()


def test_a_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(tmp_path / "nowhere.toml")


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMSERVER_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    assert load_settings().trusted_proxies == ("10.0.0.0/8", "::1")


def test_every_setting_is_an_option_of_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = CliRunner().invoke(app, ["serve", "--help"]).output
    assert "Default: embedded." in text
    assert "Default: ." not in text
    assert "Default: **" not in text
    for name in Settings.model_fields:
        if name not in NOT_ON_COMMAND_LINE:
            assert f"--{name.replace('_', '-')} " in text or f"--{name}/" in text, name


def test_a_wrong_option_ends_with_a_message_and_without_a_traceback() -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "many"])
    assert result.exit_code == 2
    assert "error: port:" in result.output
    assert "Traceback" not in result.output

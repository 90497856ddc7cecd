"""Settings of the server: one definition for command line, environment and TOML file.

Every field of `Settings` is an option of `roomserver serve` (`max_lag_ms` is `--max-lag-ms`), an
environment variable (`ROOMSERVER_MAX_LAG_MS`) and a key of the TOML file given by `--config` or
`ROOMSERVER_CONFIG`. Command line beats environment beats file beats default. `PORT`, as cloud
platforms set it, counts as environment, after `ROOMSERVER_PORT`. Unknown keys fail.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import limits
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

ENV_PREFIX = "ROOMSERVER_"
# As database_url: a private PostgreSQL, and memory.
EMBEDDED = "embedded"
NO_DATABASE = "none"
CONFIG_VARIABLE = "ROOMSERVER_CONFIG"
# Read by other commands (`broadcast`, `listen`, `import-supabase`), which may share an environment
# with a server.
CLIENT_VARIABLES = frozenset(
    ENV_PREFIX + name
    for name in ("URL", "ROOM", "PASSWORD", "EMAIL", "ACCOUNT_PASSWORD", "IMPORT_FROM")
)


class ConfigError(Exception):
    """The settings are wrong; the message names the key and says how to put it right."""


def default_data_dir() -> Path:
    """Where state lives unless told: /var/lib for root, the XDG data directory for others."""
    if os.geteuid() == 0:
        return Path("/var/lib/roomserver")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "roomserver"


def _field(default: Any, description: str, panel: str, **rules: Any) -> Any:
    extra: dict[str, Any] = {"panel": panel}
    if callable(default):
        return Field(
            default_factory=default, description=description, json_schema_extra=extra, **rules
        )
    return Field(default, description=description, json_schema_extra=extra, **rules)


NETWORK = "Network"
STATE = "State"
ROOMS = "Rooms and tokens"
RELAY = "Relay"
LIMITS = "Limits"
LOGGING = "Logging"


class Settings(BaseSettings):
    """All settings of a server, validated and immutable."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    # Network
    host: str = _field(
        "127.0.0.1", "Address to listen on; 0.0.0.0 when the platform sets PORT.", NETWORK
    )
    port: int = _field(8080, "TCP port; 0 takes a free one.", NETWORK, ge=0, le=65535)
    public_url: str = _field(
        "", "Where clients find this server; for others that share its database.", NETWORK
    )
    unix_socket: Path | None = _field(
        None, "Listen on this Unix socket instead of TCP; its peers count as proxies.", NETWORK
    )
    unix_socket_mode: str = _field(
        "660", "Permissions of the Unix socket, octal; who may write may connect.", NETWORK
    )
    tls_cert: Path | None = _field(None, "Certificate chain (PEM); needs --tls-key.", NETWORK)
    tls_key: Path | None = _field(None, "Private key of the certificate (PEM).", NETWORK)
    tls_self_signed: bool = _field(
        False, "TLS with a certificate that is made once and kept in the data directory.", NETWORK
    )
    admin_host: str = _field("127.0.0.1", "Address of --admin-port.", NETWORK)
    admin_port: int | None = _field(
        None,
        "TCP port for /metrics and /api/admin alone, which are nowhere else then; 0: a free one.",
        NETWORK,
        ge=0,
        le=65535,
    )
    metrics_token: SecretStr | None = _field(
        None, "Token for /metrics without --admin-port, 32 characters or more.", NETWORK
    )
    metrics_rooms: int = _field(
        1000, "Rooms with series of their own in /metrics.", NETWORK, ge=0, le=100_000
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = _field(
        (), "Web origins whose pages may use this server besides its own; * for any.", NETWORK
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = _field(
        (), "Addresses or networks whose X-Forwarded-For is believed.", NETWORK
    )

    # State
    data_dir: Path = _field(default_data_dir, "Directory of accounts and secrets.", STATE)
    database_url: SecretStr = _field(
        SecretStr(EMBEDDED),
        "Where rooms are kept: 'embedded' for a private PostgreSQL, a postgresql:// URL (with a"
        " password better in the environment), or 'none' for memory (accounts in a file).",
        STATE,
    )
    database_pooler: Literal["none", "transaction"] = _field(
        "none", "What stands before the database: 'transaction' for pgbouncer and the like.", STATE
    )
    outbox_events: int = _field(
        200_000, "Events that may wait for the database.", STATE, ge=1000, le=100_000_000
    )
    analytics_interval_s: float = _field(
        300.0, "Between two computations of the daily figures.", STATE, ge=0.1, le=86_400
    )
    keep_audit_days: int = _field(
        365, "Lines of the audit log are kept so long; 0 for ever.", STATE, ge=0, le=36_500
    )
    keep_addresses_days: int = _field(
        30, "Addresses and user agents in them and in stays; 0 for as long.", STATE, ge=0, le=36_500
    )
    keep_participants_days: int = _field(
        365, "Who was in a room is kept so long; 0 for ever.", STATE, ge=0, le=36_500
    )
    purge_interval_s: float = _field(
        86_400.0, "Between two purges of what was kept so long.", STATE, ge=0.1, le=604_800
    )
    counters_interval_s: float = _field(
        30.0, "How often it is kept how much listeners got so far.", STATE, ge=0.1, le=3600
    )
    lease_s: float = _field(
        60.0,
        "Without a sign of life for so long, another server on the database takes the rooms.",
        STATE,
        ge=1,
        le=3600,
    )
    secret: SecretStr | None = _field(
        None, "Key that signs tokens, 32 characters or more; made once if absent.", STATE
    )
    old_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = _field(
        (), "Keys that signed before it, whose tokens are still taken.", STATE
    )

    # Rooms and tokens
    grace_s: float = _field(
        300.0, "How long a room outlives its source's connection.", ROOMS, ge=0, le=86_400
    )
    registration: Literal["open", "invite", "closed"] = _field(
        "closed", "Who may make an account: anyone, who was invited, or administrators.", ROOMS
    )
    access_token_s: float = _field(900.0, "Life of an access token.", ROOMS, ge=1, le=86_400)
    refresh_token_s: float = _field(
        604_800.0, "Life of a refresh token.", ROOMS, ge=1, le=31_536_000
    )
    room_token_s: float = _field(43_200.0, "Life of a room token.", ROOMS, ge=1, le=604_800)
    max_room_listeners: int = _field(
        0, "Listeners a room admits; 0 for no limit.", ROOMS, ge=0, le=1_000_000
    )
    bcrypt_rounds: int = _field(12, "Cost of a password hash (2^n).", ROOMS, ge=4, le=16)
    password_threads: int = _field(1, "Threads that check passwords, per pool.", ROOMS, ge=1, le=64)
    password_queue: int = _field(
        32, "Passwords waiting per thread before 503.", ROOMS, ge=1, le=10_000
    )

    # Relay
    threads: int | None = _field(None, "Native threads; default cores - 1.", RELAY, ge=1, le=64)
    realtime: bool = _field(True, "Ask for real-time scheduling of native threads.", RELAY)
    max_lag_ms: int = _field(500, "Delay over which a listener is paused.", RELAY, ge=20, le=60_000)
    evict_after_s: float = _field(
        15.0, "A listener that takes nothing for so long is reset.", RELAY, ge=0.1, le=3600
    )
    register_timeout_s: float = _field(10.0, "Time to register.", RELAY, ge=0.1, le=600)
    ping_interval_ms: int = _field(1000, "Between pings.", RELAY, ge=20, le=60_000)
    silence_timeout_s: float = _field(
        2.0, "A source that is silent for so long is pinged.", RELAY, ge=0.05, le=600
    )
    source_timeout_s: float = _field(
        10.0, "No byte from a source: suspended.", RELAY, ge=0.1, le=3600
    )
    watchdog_ms: int = _field(
        500, "A native thread so late is reported; 0 for never.", RELAY, ge=0, le=60_000
    )

    # Limits
    max_text_bytes: int = _field(65_536, "Longest text message.", LIMITS, ge=1024, le=16 << 20)
    max_binary_bytes: int = _field(2 << 20, "Longest packet.", LIMITS, ge=1024, le=64 << 20)
    max_packets_per_s: int = _field(
        50_000, "Packets per second and source.", LIMITS, ge=1, le=10_000_000
    )
    max_unregistered_per_address: int = _field(
        1024, "Connections of an address that did not register yet.", LIMITS, ge=1, le=1_000_000
    )
    max_connections_per_participant: int = _field(
        32, "Listeners with one room token; 0 for no limit.", LIMITS, ge=0, le=1_000_000
    )
    max_connections: int = _field(
        0, "WebSockets; 0: as many as descriptors allow.", LIMITS, ge=0, le=10_000_000
    )
    request_timeout_s: float = _field(
        10.0, "Time for the head of an HTTP request, and for TLS before it.", LIMITS, ge=0.1, le=600
    )
    max_head_bytes: int = _field(
        16_384, "Longest head of an HTTP request.", LIMITS, ge=1024, le=1 << 20
    )
    max_body_bytes: int = _field(65_536, "Longest HTTP body.", LIMITS, ge=1024, le=16 << 20)
    login_limit: str = _field("5 per 15 minutes", "Failed logins by account and address.", LIMITS)
    login_account_limit: str = _field(
        "20 per 15 minutes", "Failed logins of an account, beyond which they take longer.", LIMITS
    )
    login_address_limit: str = _field("30 per minute", "Failed logins by address.", LIMITS)
    refresh_limit: str = _field("300 per 15 minutes", "Refreshed tokens by address.", LIMITS)
    register_limit: str = _field("5 per hour", "Registrations by address.", LIMITS)
    create_limit: str = _field("3 per hour", "Rooms made by an account.", LIMITS)
    join_limit: str = _field("10 per 5 minutes", "Failed joins by address and room.", LIMITS)
    join_address_limit: str = _field("100 per minute", "Failed joins by address.", LIMITS)
    join_success_limit: str = _field(
        "10000 per minute", "Successful joins by address and room.", LIMITS
    )
    limits_url: SecretStr = _field(
        SecretStr(""),
        "redis:// URL (with a password better in the environment) where servers that share it"
        " count limits together; else each by itself.",
        LIMITS,
    )
    shutdown_s: float = _field(10.0, "Time to shut down in.", LIMITS, ge=0.5, le=300)

    # Logging
    log_format: Literal["console", "json"] = _field("console", "How log lines look.", LOGGING)
    log_level: Literal["debug", "info", "warning", "error"] = _field(
        "info", "Least level logged.", LOGGING
    )

    @field_validator("allowed_origins", "trusted_proxies", "old_secrets", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("unix_socket_mode")
    @classmethod
    def _check_mode(cls, value: str) -> str:
        if not re.fullmatch("0?[0-7]{3}", value):
            raise ValueError("must be three octal digits, like 660")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @field_validator(
        "login_limit",
        "login_account_limit",
        "login_address_limit",
        "refresh_limit",
        "register_limit",
        "create_limit",
        "join_limit",
        "join_address_limit",
        "join_success_limit",
    )
    @classmethod
    def _check_limit(cls, value: str) -> str:
        limits.parse(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url not in (NO_DATABASE, EMBEDDED) and not url.startswith(
            ("postgresql://", "postgres://")
        ):
            raise ValueError("it is 'none', 'embedded' or begins with postgresql://")
        return value

    @field_validator("limits_url")
    @classmethod
    def _check_limits_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url and not url.startswith(("redis://", "rediss://", "redis+unix://")):
            raise ValueError("it begins with redis://, rediss:// or redis+unix://")
        return value

    @field_validator("secret", "metrics_token")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @field_validator("old_secrets")
    @classmethod
    def _check_old_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            if len(secret.get_secret_value().encode()) < 32:
                raise ValueError("each must have at least 32 characters")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key are needed together")
        if self.tls_self_signed and self.tls_cert is not None:
            raise ValueError("tls_self_signed is instead of tls_cert and tls_key")
        return self

    @property
    def in_memory(self) -> bool:
        """Whether rooms are kept in memory alone, without a database."""
        return self.database_url.get_secret_value() == NO_DATABASE

    @property
    def has_private_database(self) -> bool:
        """Whether the database is one in the data directory."""
        return self.database_url.get_secret_value() == EMBEDDED

    @property
    def longest_token_s(self) -> float:
        """How long the token that lives longest lives."""
        return max(self.access_token_s, self.room_token_s)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            _PlatformPort(settings_cls),
            TomlConfigSettingsSource(settings_cls),
        )


class _PlatformPort(PydanticBaseSettingsSource):
    """`PORT` as platforms set it: such a platform routes to all interfaces of the container."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        port = os.environ.get("PORT")
        return {"port": port, "host": "0.0.0.0"} if port else {}  # noqa: S104


def load_settings(config: Path | None = None, **options: Any) -> Settings:
    """Settings from all sources; `options` are those given on the command line.

    Raises ConfigError with a message for people.
    """
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    if config is not None and not config.is_file():
        raise ConfigError(f"configuration file {config} does not exist")
    _refuse_unknown_variables(os.environ)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        return FromFile(**options)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{config}: {error}") from None
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    known |= CLIENT_VARIABLES | {CONFIG_VARIABLE}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name.upper() not in known:
            raise ConfigError(f"unknown environment variable {name}{_suggestion(name, known)}")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key '{key}'{_suggestion(key, Settings.model_fields)}")
        else:
            text = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {text}" if key else text)
    return "\n".join(lines)


def _suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""

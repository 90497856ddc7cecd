"""Logging: events with fields, for people or as JSON lines on standard error, without secrets."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_FIELDS = frozenset(
    {
        "password",
        "secret",
        "token",
        "room_token",
        "roomToken",
        "access_token",
        "accessToken",
        "refresh_token",
        "refreshToken",
        "authorization",
        "password_hash",
    }
)


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The second line of defence: nobody should log these, and if somebody does, they are blank."""
    for name in SECRET_FIELDS & event.keys():
        event[name] = "***"
    return event


def configure_logging(style: Literal["console", "json"], level: str) -> None:
    """Sends structlog and the standard library's loggers through one formatter to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    # Tracebacks without the values of variables, among which are passwords and tokens.
    last: list[Processor]
    if style == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A line per request belongs to the access log of a proxy; ours says what happened to rooms.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.captureWarnings(True)

"""Data directories in which the account that PostgreSQL runs as can work, root or not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory whose parents are open to everybody, unlike pytest's own; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def url(connection: dict[str, Any]) -> str:
    """The address as one text."""
    query = {"host": connection["host"]}
    if "port" in connection:
        query["port"] = str(connection["port"])
    user, password = quote(connection["user"]), quote(connection["password"])
    return f"postgresql://{user}:{password}@/{connection['database']}?{urlencode(query)}"

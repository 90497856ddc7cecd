"""The `roomserver` command, also as `python -m roomserver`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; or say what to install, since relaycore alone brings NumPy only."""
    try:
        from roomserver.cli import main as command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("relaycore", "roomserver")):
            raise
        sys.exit(f"roomserver needs {error.name}:  pip install 'relaycore[server]'")
    command()


if __name__ == "__main__":
    main()

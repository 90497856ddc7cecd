"""Shows that an installed wheel works: run outside the source tree, with NumPy and nothing else."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import relaycore


def check_files() -> None:
    """The installed package is whole, and it is the installed one that runs."""
    package = Path(relaycore.__file__).parent
    assert package.parent.name == "site-packages", f"not the installed package: {package}"
    assert relaycore.__version__ == importlib.metadata.version("relaycore")
    for name in ("py.typed", "capi.pxd"):
        assert (package / name).is_file(), f"{name} is not in the wheel"


def main() -> None:
    """Run every check, saying which."""
    for check in (check_files,):
        print(f"{check.__name__} ...", flush=True)
        check()
    print(f"relaycore {relaycore.__version__} works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()

"""Prints what pyproject.toml's [build-system] requires, for an install without isolation."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
print(*project["build-system"]["requires"])

"""Rooms and connections over a fake relay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.control_plane import ControlPlane


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    yield plane
    plane.close()

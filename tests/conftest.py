"""Shared fixtures. `sample` is the developers' real sample data; tests that need it skip elsewhere."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "shared" / "sample"


@pytest.fixture(scope="session")
def sample() -> Path:
    if not (SAMPLE / "satellite_text.csv").exists():
        pytest.skip("the developers' sample data (../shared/sample) is not here")
    return SAMPLE


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a target cache of its own, and the user's stays as it is."""
    monkeypatch.setenv("GEOBIND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers that a test registers end with it; the built-in ones are there before, and stay."""
    from geobind.towers import base

    for module in base._BUILT_IN.values():
        importlib.import_module(module)
    monkeypatch.setattr(base, "_REGISTRY", {kind: dict(classes) for kind, classes in base._REGISTRY.items()})


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit status, stdout, stderr."""
    from geobind import GeoBindWarning
    from geobind.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geobind", *map(str, arguments)])
        status = 0
        with warnings.catch_warnings():
            warnings.simplefilter("always", GeoBindWarning)
            try:
                main()
            except SystemExit as stop:
                status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call

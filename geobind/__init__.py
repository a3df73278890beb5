"""geobind: one embedding space for everything that can be known about a place, bound by satellite images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names and where they live; imported at first use, so that `import geobind` is instant.
_PUBLIC = {
    "GeoBind": "geobind.space",
    "Pairs": "geobind.data.pairs",
    "Stage": "geobind.binding.stage",
    "Link": "geobind.binding.stage",
    "bind": "geobind.binding.loop",
    "Evaluation": "geobind.retrieval.items",
    "evaluate": "geobind.retrieval.evaluation",
    "Gallery": "geobind.gallery.store",
    "Filter": "geobind.gallery.filters",
    "search": "geobind.gallery.search",
    "Query": "geobind.retrieval.query",
    "Term": "geobind.retrieval.query",
    "score": "geobind.retrieval.scores",
    "calibrate": "geobind.retrieval.scores",
    "classify": "geobind.tasks.zero_shot",
    "probe": "geobind.tasks.probe",
    "map": "geobind.mapping.run",
    "write_map": "geobind.mapping.run",
    "read_map": "geobind.mapping.geotiff",
    "Recipe": "geobind.recipe",
    "Tower": "geobind.towers.base",
    "Processor": "geobind.towers.base",
    "register": "geobind.towers.base",
    "build_tower": "geobind.towers.base",
    "import_checkpoint": "geobind.interop.importing",
    "export_onnx": "geobind.interop.onnx",
    "push_to_hub": "geobind.interop.hub",
    "GeoBindError": "geobind.errors",
    "GeoBindWarning": "geobind.errors",
    "MediaError": "geobind.errors",
}
__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from geobind.binding.loop import bind
    from geobind.binding.stage import Link, Stage
    from geobind.data.pairs import Pairs
    from geobind.errors import GeoBindError, GeoBindWarning, MediaError
    from geobind.gallery.filters import Filter
    from geobind.gallery.search import search
    from geobind.gallery.store import Gallery
    from geobind.interop.hub import push_to_hub
    from geobind.interop.importing import import_checkpoint
    from geobind.interop.onnx import export_onnx
    from geobind.mapping.geotiff import read_map
    from geobind.mapping.run import map, write_map
    from geobind.recipe import Recipe
    from geobind.retrieval.evaluation import evaluate
    from geobind.retrieval.items import Evaluation
    from geobind.retrieval.query import Query, Term
    from geobind.retrieval.scores import calibrate, score
    from geobind.space import GeoBind
    from geobind.tasks.probe import probe
    from geobind.tasks.zero_shot import classify
    from geobind.towers.base import Processor, Tower, build_tower, register


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'geobind' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

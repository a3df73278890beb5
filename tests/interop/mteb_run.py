"""Run by a Python that has mteb: a stand-in for the SoundingEarth tasks, both directions. Prints the scores.

    python tests/interop/mteb_run.py SPACE MEDIA

MEDIA holds `N.flac` and `N.png` of one place each. Not collected by pytest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mteb
from datasets import Audio, Dataset, DatasetDict, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from geobind import GeoBind
from geobind.interop.mteb import MtebEncoder

SPACE, MEDIA = Path(sys.argv[1]), Path(sys.argv[2])


def column(kind: str) -> Dataset:
    suffix, feature = {"audio": (".flac", Audio()), "image": (".png", Image())}[kind]
    paths = sorted(MEDIA.glob(f"*{suffix}"), key=lambda path: int(path.stem))
    content = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    names = [f"{kind}-{path.stem}" for path in paths]
    table = Dataset.from_dict({"id": names, kind: content, "modality": [kind] * len(paths)})
    return table.cast_column(kind, feature)


def task(query: str, gallery: str) -> AbsTaskRetrieval:
    class StandIn(AbsTaskRetrieval):
        metadata = TaskMetadata(
            type="Any2AnyRetrieval", name=f"StandIn{query}{gallery}", main_score="ndcg_at_10", description="",
            reference="https://example.org", dataset={"path": "NA", "revision": "NA"},
            category=f"{query[0]}2{gallery[0]}", eval_splits=["test"], eval_langs=["eng-Latn"],
            date=("2020-01-01", "2020-01-01"), dialect=[], domains=[], task_subtypes=[], license="cc-by-4.0",
            annotations_creators="derived", modalities=[query, gallery], sample_creation="found", bibtex_citation="",
        )  # fmt: skip

        def load_data(self, **_):
            queries, corpus = column(query), column(gallery)
            self.queries, self.corpus = DatasetDict({"test": queries}), DatasetDict({"test": corpus})
            pairs = zip(queries["id"], corpus["id"], strict=True)
            self.relevant_docs = {"test": {one: {other: 1} for one, other in pairs}}
            self.data_loaded = True

    return StandIn()


if __name__ == "__main__":
    encoder = MtebEncoder(GeoBind.from_pretrained(SPACE))
    scores = {}
    for query, gallery in (("audio", "image"), ("image", "audio")):
        result = mteb.evaluate(encoder, task(query, gallery), cache=None, overwrite_strategy="always")
        scores[f"{query} {gallery}"] = result.task_results[0].get_score()
    assert "torchvision" not in sys.modules
    print(json.dumps(scores))

"""ONNX graphs give the towers' vectors.

* For every kind of tower, onnxruntime alone gives what `space.embed` gives, to 1e-4, for batches and lengths of
  any size, conditioned on place and time or not.
* int8: what is reported is what one finds by running the written file.
* A tower that tracing cannot record is refused, and nothing is written.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from geobind import Evaluation, GeoBind, GeoBindError, Tower, build_tower, export_onnx
from geobind.interop.examples import example_rows
from geobind.towers.vector import VectorProcessor
from tests.models import save_joint
from tests.spaces import vector_pairs, vector_space

DIM = 24


def towers(tmp_path):
    clip, clap = save_joint(tmp_path / "clip", "clip"), save_joint(tmp_path / "clap", "clap")
    siglip = save_joint(tmp_path / "siglip", "siglip")
    words = build_tower("small", modality="text", dim=DIM, vocab_size=300)
    words.fit([{"text": "waves on a beach"}])
    fixed = build_tower("clip", modality="text", dim=DIM, weights=siglip, head={"kind": "mlp", "hidden": 8})
    return [
        build_tower("clip", modality="satellite", dim=DIM, weights=clip, condition="sphere"),
        build_tower("clip", modality="satellite", dim=DIM, weights=clip, size=48),
        build_tower("clip", modality="text", dim=DIM, weights=clip),
        build_tower("clap", modality="audio", dim=DIM, weights=clap),
        build_tower("clap", modality="audio", dim=DIM, weights=clap, fusion=True),
        build_tower("clap", modality="text", dim=DIM, weights=clap),
        fixed,
        build_tower("hf", modality="satellite", dim=DIM, config={"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
        build_tower("satmae", modality="satellite", dim=DIM, config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}, classes=40, head="linear"),
        build_tower("location", modality="location", dim=DIM),
        build_tower("vector", modality="environment", dim=DIM, width=5, standardize=False),
        build_tower("small", modality="satellite", dim=DIM),
        build_tower("small", modality="audio", dim=DIM),
        words,
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::geobind.errors.GeoBindWarning")  # some rows are without place
def test_onnxruntime_gives_the_vectors_of_every_kind_of_tower(tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    for number, tower in enumerate(towers(tmp_path)):
        for module in tower.modules():  # a condition starts at zero, and would not be seen
            if type(module).__name__ == "GeoEncoder":
                torch.nn.init.normal_(module.fc2.weight)
        space = GeoBind(DIM, [tower])
        out = tmp_path / f"onnx{number}"
        export_onnx(space, out)
        described = json.loads((out / "onnx.json").read_text())["towers"][tower.modality]
        assert described["fingerprint"] == space.fingerprint(tower.modality)
        session = onnxruntime.InferenceSession(str(out / tower.modality / "model.onnx"))
        rows = example_rows(tower, 7)
        for part in (rows[3:4], rows[:1], rows):
            batch = tower.processor.collate([tower.processor(row) for row in part])
            assert {*described["inputs"]} == {*batch}
            inputs = {put.name: batch[put.name].numpy() for put in session.get_inputs()}
            (vectors,) = session.run(None, inputs)
            expected = space.embed_rows(tower.modality, part)
            assert abs(vectors - expected).max() < 1e-4, (tower.kind, tower.modality)
            assert len(part) == 1 or np.ptp(expected, axis=0).max() > 1e-3  # the rows are told apart


def test_int8_is_judged_by_the_file_that_was_written(tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    space = vector_space("satellite", "text")
    space.record_binding(["satellite"], {("satellite", "text"): 0.07})
    pairs = vector_pairs("satellite", "text", split=["test"] * 120)
    report = export_onnx(
        space, tmp_path / "out", int8=True, evaluations=[Evaluation(("satellite", "text"), pairs)]
    )
    exact, small = (row for row in report.towers if row["modality"] == "satellite")
    assert exact["difference"] < 1e-5
    assert small["bytes"] < exact["bytes"]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "satellite" / "model_int8.onnx"))
    values = np.stack([pairs[row]["satellite"] for row in range(120)])
    (vectors,) = session.run(None, {"vector": values})
    cosines = (vectors * space.embed("satellite", list(values))).sum(1)
    # Activations are rounded by the range of a batch, so other batches give slightly other cosines.
    assert small["cosine"] == pytest.approx(cosines.mean(), abs=2e-3)
    assert small["values"] == 120
    assert 0.99 < small["cosine"] < 1 - 1e-7
    assert {row["baseline_name"] for row in report.retrieval.rows} == {"int8"}
    assert len(report.tables()) == 2


class Undecided(Tower):
    """Does one thing or another by what it sees, which tracing cannot record."""

    kind = "undecided"

    def __init__(self, modality: str = "environment") -> None:
        super().__init__(modality, width=4, processor=VectorProcessor(modality, 4))

    def encode(self, vector):
        return vector if float(vector.sum()) > 0 else -vector


def test_a_tower_that_tracing_cannot_record_is_refused(tmp_path):
    with pytest.raises(
        GeoBindError, match="environment tower Undecided gives other vectors as ONNX"
    ) as caught:
        export_onnx(GeoBind(4, [Undecided()]), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GeoBindError, match=r'pip install "geobind\[onnx\]"'):
        export_onnx(vector_space("satellite"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

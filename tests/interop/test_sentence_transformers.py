"""A space's CLIP as sentence-transformers reads it.

* The folder's weights, as transformers opens them, give the towers' vectors.
* In an environment with sentence-transformers and without geobind, pictures and sentences get the same vectors.
* Towers for which it has no module are refused with the reason, and nothing is written.
"""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from geobind import GeoBind, GeoBindError, build_tower
from geobind.interop.sentence_transformers import export_sentence_transformers
from tests.models import save_joint

TEXTS = ["a harbour", "the edge of a forest seen from above, longer than is read"]


@pytest.fixture
def space(tmp_path) -> GeoBind:
    clip = save_joint(tmp_path / "clip", "clip")
    return GeoBind(24, [build_tower("clip", modality=m, dim=24, weights=clip) for m in ("satellite", "text")])


def pictures() -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in range(2)]


def test_transformers_opens_the_same_model(space, tmp_path):
    from transformers import CLIPModel

    export_sentence_transformers(space, tmp_path / "out")
    model = CLIPModel.from_pretrained(tmp_path / "out" / "0_CLIPModel").eval()
    pixels = torch.stack([space.tower("satellite").processor({"satellite": p})["pixels"] for p in pictures()])
    with torch.inference_mode():
        seen = model.get_image_features(pixel_values=pixels).pooler_output.numpy()
    expected = space.embed("satellite", pictures())
    assert abs(seen / np.linalg.norm(seen, axis=1, keepdims=True) - expected).max() < 1e-5


ENCODE = """
import sys
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
folder, texts, pictures = sys.argv[1], sys.argv[2].split("|"), [Image.open(path) for path in sys.argv[3].split("|")]
model = SentenceTransformer(folder, device="cpu")
np.savez(sys.argv[4], text=model.encode(texts), satellite=model.encode(pictures))
assert "geobind" not in sys.modules
"""


@pytest.mark.skipif("GEOBIND_ST_PYTHON" not in os.environ, reason="make test-elsewhere makes the environment")
def test_sentence_transformers_gives_the_same_vectors(space, tmp_path):
    export_sentence_transformers(space, tmp_path / "out")
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for path, picture in zip(paths, pictures(), strict=True):
        Image.fromarray(picture).save(path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [os.environ["GEOBIND_ST_PYTHON"], "-c", ENCODE, str(tmp_path / "out"), "|".join(TEXTS),
         "|".join(map(str, paths)), str(tmp_path / "vectors.npz")],
        check=True, cwd=tmp_path, env=environment | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    found = np.load(tmp_path / "vectors.npz")
    assert abs(found["text"] - space.embed("text", TEXTS)).max() < 1e-4
    assert abs(found["satellite"] - space.embed("satellite", paths)).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"head": {"kind": "mlp", "hidden": 8}}, "has a head"),
        ({"condition": "sphere"}, "is conditioned on place and time"),
        ({"size": 48}, "sees another size"),
    ],
)
def test_towers_without_a_module_there_are_refused(space, tmp_path, options, reason):
    space.add(build_tower("clip", modality="satellite", dim=24, weights=tmp_path / "clip", **options))
    with pytest.raises(GeoBindError, match=f"satellite tower {reason}.*--to onnx"):
        export_sentence_transformers(space, tmp_path / "out")
    space.add(build_tower("vector", modality="satellite", dim=24, width=24))
    with pytest.raises(GeoBindError, match="is no CLIP"):
        export_sentence_transformers(space, tmp_path / "out")
    assert not (tmp_path / "out").exists()

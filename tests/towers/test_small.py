"""The `small` towers, trained from scratch.

Pinned: an embedding depends on its own value only (not on the batch, its padding or its windows' neighbours);
the transform without a generator is fixed and with one is drawn from it alone; a saved tower comes back
bit-equal, its tokenizer with it; the tokenizer is a function of the set of captions; and each tower learns.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from geobind.errors import GeoBindError, MediaError
from geobind.towers.base import Tower, build_tower, fingerprint, load_tower
from geobind.towers.small import SmallAudio, SmallImage, SmallText

CAPTIONS = [
    "many planes are parked in an airport .",
    "A white plane is near the terminal",
    "green trees stand around a lake",
    "boats, boats and more boats in the harbour",
    "été à Zürich, 港に船",
    "waves",
]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40 + 7 * seed, 50, 3), dtype=np.uint8)


def sound(seed: int) -> tuple[np.ndarray, int]:
    """Of lengths below, at and above one window of a second."""
    samples = np.random.default_rng(seed).normal(0, 0.1, 9_000 * (seed + 1))
    return samples.astype(np.float32), 16_000


def make(modality: str, **options) -> tuple[Tower, list]:
    """A tower with a head, in training mode, and five values of its modality."""
    torch.manual_seed(0)
    values: list = CAPTIONS
    if modality == "audio":
        options, values = {"seconds": 1, **options}, [sound(seed) for seed in range(5)]
    elif modality != "text":
        options, values = {"size": 32, **options}, [picture(seed) for seed in range(5)]
    tower = build_tower("small", modality=modality, dim=16, width=64, **options)
    tower.fit([{modality: value} for value in values])
    return tower.train(), values


def batch_of(tower: Tower, values: list, seed: int | None = None) -> dict[str, torch.Tensor]:
    rng = None if seed is None else np.random.default_rng(seed)
    return tower.processor.collate([tower.processor({tower.modality: v}, rng=rng) for v in values])


def embed(tower: Tower, values: list) -> torch.Tensor:
    with torch.no_grad():
        return tower.eval()(**batch_of(tower, values))


EVERY = pytest.mark.parametrize("modality", ["satellite", "image", "thermal", "audio", "text"])
EACH = pytest.mark.parametrize("modality", ["satellite", "audio", "text"])


@EVERY
def test_one_name_stands_for_the_family(modality):
    tower, values = make(modality)
    kinds = {"audio": SmallAudio, "text": SmallText}
    assert type(tower) is kinds.get(modality, SmallImage)
    assert (tower.kind, tower.modality, tower.width, tower.dim) == ("small", modality, 64, 16)
    assert tower.processor.columns == (modality,)
    assert not tower.pretrained
    assert embed(tower, values).shape == (len(values), 16)
    assert embed(tower, values).dtype == torch.float32


@EACH
def test_an_embedding_does_not_depend_on_the_batch(modality):
    tower, values = make(modality)
    together = embed(tower, values)
    assert torch.equal(together, embed(tower, values))
    alone = torch.cat([embed(tower, [value]) for value in values])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@EACH
def test_there_is_no_batch_normalisation(modality):
    tower, _ = make(modality)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tower.modules())


@EACH
def test_without_a_generator_the_transform_is_fixed_with_one_it_is_drawn_from_it(modality):
    tower, values = make(modality)
    processor = pickle.loads(pickle.dumps(tower.processor))
    for value in values:
        row = {modality: value}
        fixed = processor(row)
        assert all(torch.equal(fixed[key], tower.processor(row)[key]) for key in fixed)
        drawn = [tower.processor(row, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in fixed)
    longest = {modality: max(values, key=len) if modality == "text" else values[-1]}
    key = {"satellite": "pixels", "audio": "mel", "text": "tokens"}[modality]
    variants = {
        tower.processor(longest, rng=np.random.default_rng(s))[key].numpy().tobytes() for s in range(20)
    }
    assert len(variants) > 5


@EACH
def test_a_saved_tower_comes_back_bit_equal(modality, tmp_path):
    tower, values = make(modality)
    tower.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert loaded.fitted
    assert torch.equal(embed(loaded, values), embed(tower, values))
    assert fingerprint(loaded) == fingerprint(tower)


@EACH
def test_a_tower_learns_to_tell_its_values_apart(modality):
    tower, values = make(modality)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=3e-3)
    labels = torch.arange(len(values))
    batch = batch_of(tower, values)
    tower.train()
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(tower(**batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tower.parameters())


# --- images ------------------------------------------------------------------------------------------------


def test_only_satellite_images_are_turned_upside_down():
    for modality, overhead in (("satellite", True), ("image", False)):
        assert SmallImage(modality).processor.transform.augment.overhead is overhead
    options = {"scale": [0.5, 1.0], "overhead": True}
    augment = SmallImage("image", augment=options).processor.transform.augment
    assert (augment.scale, augment.overhead) == ((0.5, 1.0), True)
    assert SmallImage("image", augment=False).processor.transform.augment is None


@pytest.mark.parametrize(
    ("modality", "options", "message"),
    [
        ("satellite", {"size": 16}, r"option 'size' = 16: give 32 pixels or more"),
        ("satellite", {"width": 100}, r"option 'width' = 100: give a multiple of 64"),
        ("satellite", {"augment": {"scael": 1}}, r"its keys are"),
        ("audio", {"seconds": 0}, r"option 'seconds' = 0: give 1 to 30"),
        ("text", {"vocab_size": 256}, r"option 'vocab_size' = 256: give 257 or more"),
        ("text", {"max_length": 0}, r"option 'max_length' = 0: give 1 or more"),
        ("text", {"word_dropout": 1}, r"option 'word_dropout' = 1: give 0 or more, below 1"),
        ("text", {"size": 64}, r"tower 'small' has no option 'size'"),
    ],
)
def test_options_out_of_range_are_one_line(modality, options, message):
    with pytest.raises(GeoBindError, match=message) as caught:
        build_tower("small", modality=modality, dim=16, **options)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_one_line(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    for modality in ("satellite", "audio"):
        tower, _ = make(modality)
        with pytest.raises(MediaError, match=r"broken\.jpg"):
            tower.processor({modality: path})


# --- audio -------------------------------------------------------------------------------------------------


def test_a_long_sound_is_the_mean_of_its_windows():
    tower, _ = make("audio")
    samples, rate = sound(3)  # 36,000 samples: three windows of a second
    starts = (0, 10_000, 20_000)
    whole = tower.processor({"audio": (samples, rate)})
    assert whole["mel"].shape == (3, 1, 51, 64)
    with torch.no_grad():
        tower.eval()
        mean = torch.cat(
            [tower.encode(**batch_of(tower, [(samples[s : s + rate], rate)])) for s in starts]
        ).mean(0, keepdim=True)
        torch.testing.assert_close(tower.encode(**tower.processor.collate([whole])), mean, rtol=0, atol=1e-6)


def test_training_sees_one_window_partly_masked():
    tower, values = make("audio")
    batch = batch_of(tower, values, seed=0)
    assert batch["mel"].shape == (len(values), 1, 51, 64)
    assert batch["windows"].tolist() == [1] * len(values)
    assert (batch["mel"] == -50).any()
    plain, _ = make("audio", augment=False)
    row = {"audio": values[-1]}
    fixed, drawn = plain.processor(row), plain.processor(row, rng=np.random.default_rng(0))
    assert torch.equal(fixed["mel"], drawn["mel"])


def test_silence_has_an_embedding():
    tower, _ = make("audio")
    assert embed(tower, [(np.zeros(8_000, dtype=np.float32), 16_000)]).isfinite().all()


# --- text --------------------------------------------------------------------------------------------------


def tokenizer_of(captions: list[str]) -> str:
    tower = SmallText(vocab_size=400)
    tower.fit({"text": caption} for caption in captions)
    return tower.processor.tokenizer.to_str()


def test_the_tokenizer_is_a_function_of_the_captions_whatever_their_order():
    captions = [f"{a} {b}" for a in CAPTIONS for b in CAPTIONS]
    first = tokenizer_of(captions)
    for seed in range(3):
        assert tokenizer_of(list(np.random.default_rng(seed).permutation(captions))) == first
    assert tokenizer_of(captions[:6]) != first


def test_the_tokenizer_is_the_same_in_another_process():
    code = "from tests.towers.test_small import *; print(tokenizer_of(CAPTIONS), end='')"
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert run.stdout.decode() == tokenizer_of(CAPTIONS)


def test_any_text_is_read_and_case_and_forms_of_characters_do_not_matter():
    tower, _ = make("text")
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "planes")  # as Japanese keyboards write it
    same = embed(tower, ["Planes in AN airport", "planes in an airport", f"{wide} in an airport"])
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])
    assert embed(tower, ["Ωμέγα 🛰", "[PAD]", "\x00"]).isfinite().all()


def test_all_numbers_of_tokens_have_a_vector():
    tower = SmallText(vocab_size=300)
    tower.fit({"text": caption} for caption in CAPTIONS)
    assert tower.processor.tokenizer.get_vocab_size() <= 299
    tokens = torch.cat([tower.processor({"text": caption})["tokens"] for caption in CAPTIONS])
    assert tokens.min() >= 1  # 0 is padding
    assert tokens.max() <= 299


def test_long_text_is_cut():
    tower, _ = make("text")
    long = "boats and planes " * 5_000
    assert tower.processor({"text": long})["tokens"].shape == (64,)
    tower, _ = make("text", max_length=3)
    assert tower.processor({"text": long})["tokens"].shape == (3,)


@pytest.mark.parametrize("value", ["", " \n\t", None, 7, b"bytes"])
def test_what_is_no_sentence_is_one_line(value):
    tower, _ = make("text")
    with pytest.raises(MediaError, match=r"^text: .* is no sentence; give a string that is not empty$"):
        tower.processor({"text": value})


def test_word_dropout_leaves_a_token():
    tower, _ = make("text", word_dropout=0.99)
    for seed in range(20):
        assert len(tower.processor({"text": "waves"}, rng=np.random.default_rng(seed))["tokens"]) >= 1


def test_before_fit_there_is_no_embedding(tmp_path):
    tower = build_tower("small", modality="text", dim=16)
    assert not tower.fitted
    with pytest.raises(GeoBindError, match=r"no tokenizer before its first stage") as caught:
        tower.processor({"text": "a harbour"})
    assert not isinstance(caught.value, MediaError)  # skipping the row would not help
    tower.save(tmp_path)
    assert not load_tower(tmp_path).fitted
    with pytest.raises(GeoBindError, match=r"found no words"):
        tower.fit([{"text": ""}, {"text": None}])


def test_the_tokenizer_is_part_of_the_fingerprint():
    tower, _ = make("text")
    before, settings = fingerprint(tower), tower.processor.settings()
    tower.fit([{"text": "other words"}])
    assert tower.processor.settings() != settings
    assert fingerprint(tower) != before


def test_fitting_starts_no_threads_which_forked_workers_would_lack(monkeypatch):
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("threads are counted in /proc")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before = len(list(tasks.iterdir()))
    tokenizer_of(CAPTIONS * 2_000)
    assert len(list(tasks.iterdir())) == before
    assert "TOKENIZERS_PARALLELISM" not in os.environ

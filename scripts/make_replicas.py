"""Small replicas of published data sets in their real layouts, with their real quirks.

    python scripts/make_replicas.py runs/replicas

Tests and recipes are tried on them: no file of the data sets themselves is in the repository or needed.
Each place has one of six themes, which its tile's colour, its photo's colour, its sound's pitch and its caption share,
so that there is something to learn. All of it is a function of the seed.

The quirks: dates that are missing, 0000-00-00 or impossible; `.jpg` beside `.jpeg`; mono and stereo; clips
under 16 kHz; clips of 120 s by their metadata; empty descriptions; samples without a member (`broken=True`).
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image

THEMES = ("harbour", "forest", "desert", "village", "river", "glacier")
_COLOURS = np.array(
    [(40, 80, 160), (30, 110, 40), (210, 180, 120), (150, 110, 100), (70, 130, 130), (235, 240, 250)]
)

# The shards that Sat2Cap's code names: two of the test, one that fills the queue. The others train.
SAT2CAP_TEST = ("9f248448-1d13-43cb-a336-a7d92bc5359e", "206faf6d-e5f4-428e-b27c-4a55746d5629")
SAT2CAP_QUEUE = "1ae82f9a-5cf7-4430-bb9b-00f41d2bc9c3"
SAT2CAP_TRAIN = ("0b0c5a4e-58d1-4c86-9a3f-2f6f3c1f7c11", "c1d8f6a2-7a57-4bb1-8f0e-91d0a9f2b4e7")

BROKEN_DATES = ("0000-00-00 00:00:00", "2011-02-30 10:00:00", "")

SOUNDINGEARTH_COLUMNS = (
    "long_key", "key", "longitude", "latitude", "altitude", "description", "date_recorded", "date_uploaded",
    "creator", "licenseurl", "title", "mp3name", "mp3mb", "mp3seconds", "mp3channels", "mp3bitrate",
    "mp3samplerate", "mp3file",
)  # fmt: skip


class Place:
    """One synthetic place: what a tile, a photo, a sound and a caption of it are."""

    def __init__(self, number: int, seed: int) -> None:
        self.rng = np.random.default_rng([seed, number])
        self.number = number
        self.theme = number % len(THEMES)
        self.latitude = round(float(self.rng.uniform(-60, 70)), 6)
        self.longitude = round(float(self.rng.uniform(-179, 179)), 6)

    def picture(self, size: int, brightness: float = 1.0, suffix: str = ".jpg") -> bytes:
        """A JPEG (or PNG) of size x size pixels in the colour of the theme, with a pattern of the place."""
        pattern = self.rng.normal(size=(4, 4, 1))
        pattern = np.kron(pattern, np.ones((-(-size // 4), -(-size // 4), 1)))[:size, :size]
        pixels = _COLOURS[self.theme] * brightness + 25 * pattern + self.rng.normal(0, 4, (size, size, 3))
        buffer = io.BytesIO()
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(buffer, "PNG" if suffix == ".png" else "JPEG", quality=90)
        return buffer.getvalue()

    def sound(self, seconds: float, rate: int, channels: int, kind: str = "MP3") -> bytes:
        """A tone of the theme's pitch in noise, as a file of that kind."""
        time = np.arange(int(seconds * rate)) / rate
        tone = 0.4 * np.sin(2 * np.pi * 300 * (1 + self.theme) * time)
        samples = tone[:, None] + 0.02 * self.rng.normal(size=(len(time), channels))
        buffer = io.BytesIO()
        soundfile.write(buffer, samples.astype(np.float32), rate, format=kind)
        return buffer.getvalue()

    @property
    def caption(self) -> str:
        return f"recording {self.number} near a {THEMES[self.theme]}"

    def date(self, separator: str = " ") -> str | None:
        """A date as published; each fifth one is missing or broken."""
        if self.number % 5 == 4:
            return BROKEN_DATES[self.number // 5 % 3] or None
        return f"20{10 + self.number % 9}-0{1 + self.number % 9}-1{self.number % 10}{separator}0{self.number % 10}:30:00"


def write_sat2cap(
    folder: Path, *, samples: int = 12, size: int = 48, seed: int = 0, broken: bool = False
) -> Path:
    """WebDataset shards `<uuid>.tar`: two that train, one of the test, the one that fills the queue.

    `samples`: photos a shard; `size`: pixels of both pictures (800 as published). With `broken`, one
    sample of each shard lacks its photo.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard in (*SAT2CAP_TRAIN, SAT2CAP_TEST[0], SAT2CAP_QUEUE):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for sample in range(samples):
                place = Place(number, seed)
                key = f"{4_000_000_000 + 7919 * number}"
                date = place.date()
                metadata = {"latitude": place.latitude, "longitude": place.longitude}
                if date is not None:
                    metadata["date_taken"] = date + ".0"  # type: ignore[assignment]
                if not (broken and sample == 1):
                    add_member(tar, f"{key}.groundlevel.jpg", place.picture(size, 0.8))
                add_member(tar, f"{key}.overhead.jpg", place.picture(size))
                add_member(tar, f"{key}.metadata.json", json.dumps(metadata).encode())
                number += 1
    return folder


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put bytes into a tar archive under a name."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_soundingearth(
    folder: Path,
    *,
    places: int = 30,
    size: int = 48,
    seconds: float = 0.5,
    seed: int = 0,
    geoclap: bool = False,
) -> Path:
    """SoundingEarth as on Zenodo: metadata.csv, images/<key>.jpg, raw_audio/<long_key>/<mp3name>.

    With `geoclap`, as GeoCLAP arranges it: images/googleEarth/<key>.jpg, images/sentinel_geoclap/<key>.jpeg,
    train_df.csv, validate_df.csv, test_df.csv, final_metadata_with_captions.csv and corrupt_ids_final.csv,
    from whose splits clips under 16 kHz are left out.
    """
    images = folder / "images" / ("googleEarth" if geoclap else "")
    images.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number in range(places):
        place = Place(number, seed)
        key, long_key = 40_000 + number, f"aporee_{9000 + number // 2}_{10_000 + number}"
        rate = (44_100, 48_000, 32_000, 11_025)[number % 4]
        channels = 1 + number % 2
        name = f"{THEMES[place.theme].title()}{number}.mp3"
        (images / f"{key}.jpg").write_bytes(place.picture(size))
        if geoclap:
            sentinel = folder / "images" / "sentinel_geoclap"
            sentinel.mkdir(exist_ok=True)
            (sentinel / f"{key}.jpeg").write_bytes(place.picture(size, 0.9))
        clip = folder / "raw_audio" / long_key / name
        clip.parent.mkdir(parents=True)
        content = place.sound(seconds, rate, channels)
        clip.write_bytes(content)
        description = "" if number % 7 == 6 else place.caption
        values = (
            long_key, key, place.longitude, place.latitude, 10.5, description, place.date() or "",
            "2016-03-01 10:00:00", "someone", "http://creativecommons.org/licenses/by/3.0/", place.caption.title(),
            name, len(content) / 1e6, 120.0 if number % 10 == 3 else seconds, channels, 128, rate,
            f"https://archive.org/download/{long_key}/{name}",
        )  # fmt: skip
        rows.append(dict(zip(SOUNDINGEARTH_COLUMNS, values, strict=True)))
    _write_csv(folder / "metadata.csv", rows)
    if geoclap:
        for row in rows:
            row["caption"] = row["description"] or "This is a sound"
            row["address"] = "somewhere"
        kept = [row for row in rows if row["mp3samplerate"] >= 16_000]
        order = np.random.default_rng([seed, 42]).permutation(len(kept))
        first, second = round(0.7 * len(kept)), round(0.8 * len(kept))
        for name, part in (
            ("train", order[:first]),
            ("validate", order[first:second]),
            ("test", order[second:]),
        ):
            _write_csv(folder / f"{name}_df.csv", [kept[row] for row in part])
        _write_csv(folder / "final_metadata_with_captions.csv", rows)
        _write_csv(folder / "corrupt_ids_final.csv", [{"long_key": rows[2]["long_key"]}])
    else:
        (folder / "spectrograms").mkdir()
        for row in rows[:3]:
            noise = np.random.default_rng(row["key"]).integers(0, 255, (128, 64), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "spectrograms" / f"{row['key']}.jpg")
    return folder


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_hub(
    folder: Path, *, dataset: str = "soundingearth", rows: int = 24, size: int = 48, seconds: float = 0.5,
    seed: int = 0,
) -> Path:  # fmt: skip
    """MVRL/SoundingEarth or MVRL/GeoSound as on the Hub: data/<split>-00000-of-0000n.parquet.

    Media are structs {bytes, path}, as `datasets` writes them; train has `rows` rows in two files, val and
    test a quarter each. `date_recorded` is missing or broken in each fifth row.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    tiles = ["googleearth_image"] if dataset == "soundingearth" else ["bingmap_image", "sentinel_image"]
    number = 0
    parts = [("train", 0, 2, rows // 2), ("train", 1, 2, rows - rows // 2)]
    parts += [(split, 0, 1, max(2, rows // 4)) for split in ("val", "test")]
    for split, part, of, count in parts:
        columns: dict[str, list[Any]] = {
            name: [] for name in ("sample_id", "audio", *tiles, "audio_caption", "latitude", "longitude",
                                  "date_recorded")
        }  # fmt: skip
        if dataset == "geosound":
            columns["source"] = []
        for _ in range(count):
            place = Place(number, seed)
            source = "aporee" if dataset == "soundingearth" else ("aporee", "yfcc", "iNat")[number % 3]
            identity = f"{source}-{70_000 + number}"
            sound = place.sound(seconds, 32_000, 1, "FLAC")
            columns["sample_id"].append(identity)
            columns["audio"].append({"bytes": sound, "path": f"{identity}.flac"})
            for name in tiles:
                suffix = ".jpg" if name != "sentinel_image" else ".jpeg"
                columns[name].append({"bytes": place.picture(size), "path": f"{identity}{suffix}"})
            columns["audio_caption"].append(place.caption)
            columns["latitude"].append(place.latitude)
            columns["longitude"].append(place.longitude)
            columns["date_recorded"].append(place.date())
            if "source" in columns:
                columns["source"].append(source)
            number += 1
        kinds: dict[str, pa.DataType] = {"audio": media, **dict.fromkeys(tiles, media)}
        kinds |= {"latitude": pa.float32(), "longitude": pa.float32()}
        arrays = {name: pa.array(values, kinds.get(name)) for name, values in columns.items()}
        features = {"audio": {"_type": "Audio"}, **{name: {"_type": "Image"} for name in tiles}}
        schema = json.dumps({"info": {"features": features}})
        table = pa.table(arrays).replace_schema_metadata({"huggingface": schema})
        pq.write_table(table, folder / "data" / f"{split}-{part:05}-of-{of:05}.parquet", row_group_size=5)
    return folder


def main(folder: Path) -> None:
    """Write all replicas into sub-folders of one folder."""
    write_sat2cap(folder / "sat2cap")
    write_soundingearth(folder / "soundingearth-zenodo")
    write_soundingearth(folder / "soundingearth-geoclap", geoclap=True)
    write_hub(folder / "soundingearth-hub")
    write_hub(folder / "geosound-hub", dataset="geosound")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/replicas"))

"""Zero-shot maps of land-cover sentences against the real MODIS map: AUC of each class, beside a random text's.

    python benchmarks/land_cover_maps.py runs/demo/space --step 2

The space is one that `geobind demo` made. Baselines, on the same cells: the mean AUC of the other classes'
sentences (what a map of any text scores), and the demo's photo tower on tiles, which never saw one.
"""

from __future__ import annotations

import argparse

import numpy as np

import geobind
from geobind.console import add_row, table
from geobind.data.earth.attributes import Attributes
from geobind.data.earth.world import World
from geobind.demo.maps import land_auc
from geobind.demo.show import SENTENCES


def maps(space: geobind.GeoBind, step: float, modality: str = "satellite") -> np.ndarray:
    """(classes, cells) of cosines over the whole Earth."""
    found = geobind.map(
        space, {text: text for text in SENTENCES.values()}, (-180, -90, 180, 90), "earth", step=step,
        modality=modality, batch_size=256,
    )  # fmt: skip
    return found.values.reshape(len(SENTENCES), -1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("space")
    parser.add_argument("--step", type=float, default=2.0)
    asked = parser.parse_args()
    space = geobind.GeoBind.from_pretrained(asked.space)
    rows, columns = round(180 / asked.step), round(360 / asked.step)
    latitude, longitude = np.meshgrid(
        90 - (np.arange(rows) + 0.5) * asked.step,
        (np.arange(columns) + 0.5) * asked.step - 180,
        indexing="ij",
    )
    weights = np.cos(np.radians(latitude)).ravel()
    cover = np.asarray(Attributes.at(World.load(), latitude.ravel(), longitude.ravel()).names("cover"))
    bound, frozen = maps(space, asked.step), maps(space, asked.step, "image")
    shown = table(
        f"Area under the ROC curve, {rows} x {columns} cells", "land cover", "share", "map", "other texts", "photo tower",
        right=("share", "map", "other texts", "photo tower"),
    )  # fmt: skip
    means = []
    for number, name in enumerate(SENTENCES):
        truth = cover == name
        if not truth.any():
            continue
        auc = [land_auc(scores, truth, weights) for scores in bound]
        line = auc[number], float(np.mean(np.delete(auc, number))), land_auc(frozen[number], truth, weights)
        means.append(line)
        add_row(
            shown, name, f"{weights[truth].sum() / weights.sum():.3f}", *(f"{value:.3f}" for value in line)
        )
    add_row(shown, "mean", "", *(f"{value:.3f}" for value in np.mean(means, axis=0)))
    from rich.console import Console

    Console().print(shown)


if __name__ == "__main__":
    main()

"""Towers as ONNX graphs, compared with the originals as they are written: `geobind export --to onnx`."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from geobind.console import add_row, size_text, table
from geobind.errors import GeoBindError
from geobind.interop.examples import example_rows
from geobind.interop.folders import check_new, write_new
from geobind.retrieval.evaluation import evaluate
from geobind.retrieval.items import Evaluation
from geobind.retrieval.report import Report
from geobind.space import GeoBind
from geobind.towers.base import Row, Tower
from geobind.towers.checkpoints import first_line

TOLERANCE = 1e-4
_OPSET = 17
_SEQUENCES = ("input_ids", "attention_mask", "tokens")  # of any length; everything else has a fixed shape
_AXES = {"mel": "windows", "longer": "windows"}
_COMPARED = 256  # rows of each modality by which int8 is judged


@dataclass
class OnnxReport:
    """What was written: a row a modality, and for int8 the retrieval of both, where pairs were given."""

    towers: list[dict[str, Any]] = field(default_factory=list)
    retrieval: Report | None = None

    def tables(self) -> list[Table]:
        """For the terminal."""
        shown = table("ONNX", "modality", "file", "size", "against the original", right=("size",))
        for row in self.towers:
            add_row(shown, row["modality"], row["file"], size_text(row["bytes"]), _drift(row))
        if self.retrieval is None:
            return [shown]
        change = table("int8 for float32", "query → gallery", "pairs", "metric", "float32", "int8", "change")
        for row in self.retrieval.rows:
            metric = "map" if row["protocol"] == "group" else "recall@10"
            before, after = row[metric], row["baseline"][metric]
            name = {"map": "mAP", "recall@10": "R@10"}[metric]
            add_row(
                change, f"{row['query']} → {row['gallery']}", row["pairs"], name, f"{before:.3f}", f"{after:.3f}",
                f"{after - before:+.3f}",
            )  # fmt: skip
        return [shown, change]


def _drift(row: dict[str, Any]) -> str:
    if "difference" in row:
        return f"largest difference {row['difference']:.1e}"
    return f"cosine {row['cosine']:.4f} on average, {row['lowest']:.4f} at least, of {row['values']} values"


def export_onnx(
    space: GeoBind, out: str | Path, *, int8: bool = False, evaluations: Sequence[Evaluation] = ()
) -> OnnxReport:
    """A folder a modality with `model.onnx`, its processor's files and, for all, `onnx.json`.

    >>> export_onnx(space, "runs/onnx", int8=True, evaluations=evaluations).towers[0]["difference"]
    2.4e-07

    A graph takes what the processor gives, batches of any size, and gives (batch, dim) float32 of unit
    length. Each is run by onnxruntime on other batches than it was traced with, and refused where it
    differs from its tower by more than 1e-4. int8: also `model_int8.onnx` with weights of 8 bits, its
    cosines with the tower and its retrieval on `evaluations`.

    Raises GeoBindError where onnx is not installed, for a tower that cannot be traced or that differs;
    nothing is left half-written.
    """
    _need_onnx()
    out = Path(out)
    check_new(out)
    report = OnnxReport()
    write_new(out, lambda folder: _export(space, folder, report, int8))
    if int8:
        small = GeoBind(
            space.dim, [OnnxTower(space.tower(m), out / m / "model_int8.onnx") for m in space.modalities]
        )
        for row in report.towers:
            if row["file"].endswith("_int8.onnx"):
                row |= _compare(space, small, row["modality"], evaluations)
        if evaluations:
            report.retrieval = evaluate(
                space,
                evaluations,
                baseline=small,
                baseline_name="int8",
                device="cpu",
                progress=False,
                draws=100,
            )
    return report


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise GeoBindError(
            'ONNX needs the packages onnx and onnxruntime: pip install "geobind[onnx]"'
        ) from None


def _export(space: GeoBind, folder: Path, report: OnnxReport, int8: bool) -> None:
    manifest: dict[str, Any] = {"dim": space.dim, "towers": {}}
    for modality in space.modalities:
        tower, own = space.tower(modality).cpu().eval(), folder / modality
        _copy_processor(space, modality, own)
        rows = example_rows(tower)
        _trace(tower, _batch(tower, rows[1:3]), own / "model.onnx")
        written = OnnxTower(tower, own / "model.onnx")
        difference = max(
            _difference(tower, written, _batch(tower, part)) for part in (rows[:1], rows[2:], rows)
        )
        if not difference < TOLERANCE:
            raise GeoBindError(
                f"the {modality} tower {type(tower).__name__} gives other vectors as ONNX (by {difference:.1e}): "
                f"its encoder does what tracing cannot record; export the other modalities of the space without it"
            )
        files = ["model.onnx"]
        report.towers.append(_row(modality, own / "model.onnx") | {"difference": difference})
        if int8:
            _quantise(own / "model.onnx", own / "model_int8.onnx")
            files.append("model_int8.onnx")
            report.towers.append(_row(modality, own / "model_int8.onnx"))
        manifest["towers"][modality] = {
            "files": files,
            "inputs": {name: _described(tensor) for name, tensor in _batch(tower, rows[:1]).items()},
            "processor": tower.processor.settings(),
            "fingerprint": space.fingerprint(modality),
        }
    (folder / "onnx.json").write_text(json.dumps(manifest, indent=2, default=str) + "\n", encoding="utf-8")


def _row(modality: str, path: Path) -> dict[str, Any]:
    return {"modality": modality, "file": f"{modality}/{path.name}", "bytes": path.stat().st_size}


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": [None, *tensor.shape[1:]]}


def _copy_processor(space: GeoBind, modality: str, target: Path) -> None:
    """The tower's files beside its weights: tokenizer, preprocessing, configuration."""
    folder = space.folder(modality)
    with TemporaryDirectory(prefix="geobind-onnx-") as temporary:
        if folder is None:
            folder = Path(temporary)
            space.tower(modality).save(folder)
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors", "*.new", "*.old"))


class _Graph(nn.Module):
    """A tower as one function of its batch's tensors, to unit length."""

    def __init__(self, tower: Tower, names: Sequence[str]) -> None:
        super().__init__()
        self.tower, self.names = tower, names

    def forward(self, *tensors: Tensor) -> Tensor:
        batch = dict(zip(self.names, tensors, strict=True))
        if hasattr(self.tower, "embed_windows"):
            features = self._mean_of_windows(**batch)
            embedding = features if self.tower.head is None else self.tower.head(features)
        else:
            embedding = self.tower(**batch)
        return F.normalize(embedding.float(), dim=-1)

    def _mean_of_windows(self, mel: Tensor, windows: Tensor, longer: Tensor | None = None) -> Tensor:
        """What the towers do in a loop over sounds, as a product with a matrix of whose window is whose."""
        embed: Any = self.tower.embed_windows
        if longer is None:
            features = embed(mel)
        else:  # with a long one more: onnxruntime cannot reshape none at all
            longer = torch.cat([longer, torch.ones(1, dtype=torch.bool)])
            features = embed(torch.cat([mel, mel[-1:]]), longer)[:-1]
        ends, at = windows.cumsum(0)[:, None], torch.arange(mel.shape[0])
        own = ((at < ends) & (at >= ends - windows[:, None])).float()
        return own @ features / windows[:, None]


def _trace(tower: Tower, batch: dict[str, Tensor], path: Path) -> None:
    names = list(batch)
    axes = {
        name: {0: _AXES.get(name, "batch")} | ({1: "length"} if name in _SEQUENCES else {}) for name in names
    }
    with _quiet():
        try:
            # The tracing exporter: the one that captures graphs refuses CLAP, whose code looks into tensors.
            torch.onnx.export(
                _Graph(tower, names).eval(), tuple(batch.values()), str(path), input_names=names,
                output_names=["embedding"], dynamic_axes=axes, opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
        except Exception as error:  # an operator without a counterpart, a model over 2 GB: many kinds
            raise GeoBindError(
                f"the {tower.modality} tower {type(tower).__name__} cannot become an ONNX graph "
                f"({first_line(error)[:160]}): export a space without it"
            ) from None


def _quantise(path: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            path, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Gather"]
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' remarks on tracing and quantisation: the result is compared instead."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OnnxTower(Tower):
    """A tower's graph run by onnxruntime in its place, with its processor; it cannot be saved.

    >>> GeoBind(512, [OnnxTower(space.tower("audio"), Path("runs/onnx/audio/model_int8.onnx"))]).embed("audio", sounds)
    """

    def __init__(self, tower: Tower, path: Path) -> None:
        import onnxruntime

        super().__init__(tower.modality, width=tower.dim, processor=tower.processor)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [put.name for put in self.session.get_inputs()]  # tracing drops what is not used

    def encode(self, **batch: Tensor) -> Tensor:
        inputs = {name: batch[name].numpy(force=True) for name in self.names}
        return torch.from_numpy(self.session.run(None, inputs)[0])


def _batch(tower: Tower, rows: Sequence[Row]) -> dict[str, Tensor]:
    return tower.processor.collate([tower.processor(row) for row in rows])


def _difference(tower: Tower, other: Tower, batch: dict[str, Tensor]) -> float:
    with torch.inference_mode():
        return float((F.normalize(tower(**batch).float(), dim=-1) - other(**batch)).abs().max())


def _compare(
    space: GeoBind, other: GeoBind, modality: str, evaluations: Sequence[Evaluation]
) -> dict[str, Any]:
    """Cosines of the two towers' vectors: on rows of the evaluations where there are any, else on examples."""
    rows: Sequence[Row] = example_rows(space.tower(modality))
    for evaluation in evaluations:
        for side, pairs in zip(evaluation.between, evaluation.tables, strict=True):
            if side == modality:
                own = pairs if evaluation.split is None else pairs.split(evaluation.split)
                own = own.having([modality])
                rows = [own[row] for row in range(min(len(own), _COMPARED))]
    a, b = (which.embed_rows(modality, rows, device="cpu", on_error="skip") for which in (space, other))
    cosines = (a * b).sum(1)
    cosines = cosines[np.isfinite(cosines)]
    return {"cosine": float(cosines.mean()), "lowest": float(cosines.min()), "values": len(cosines)}

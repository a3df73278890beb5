"""Searching a million real embeddings: geobind beside faiss and a plain numpy scan, exact and approximate.

    python benchmarks/search_sets.py --demo runs/demo --sample ../shared/sample --folder runs/search    # once
    python benchmarks/search.py --folder runs/search [--rows 100000]

Needs faiss-cpu. Every arm is built in a process of its own (kept in the folder, so that HNSW is built once)
and asked in another, whose memory is printed. Arms take turns, 10 queries each, one query at a time; each is asked
for the 10 nearest rows of all, and of those in a box on the ground that keeps 1 %. geobind is asked through
`geobind.search`, from a vector to its sources and places, and only for a recall of 0.98; the arms of faiss give row
numbers, and look as far as other queries need for that recall. Recall is against exact float32: a row is
right whose cosine is at least that of the true tenth, less 1e-6, or less 1e-4.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

K, RECALL, SHARE, BOXES, BLOCK, ADDED = 10, 0.98, 0.01, 10, 50_000, 10_000
Box = tuple[float, float, float, float]  # west, south, east, north


@dataclass
class Data:
    """A set on disk, as the arms see it: `search_sets.Set` without what makes it."""

    folder: Path
    rows: int
    vectors: NDArray[np.float32] = field(init=False)
    places: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.vectors = np.load(self.folder / "vectors.npy", mmap_mode="r")[: self.rows]
        self.places = np.load(self.folder / "places.npy")[: self.rows]

    def __reduce__(self) -> Any:
        return Data, (self.folder, self.rows)  # mapped again, not copied

    def blocks(self) -> Any:
        for start in range(0, self.rows, BLOCK):
            yield start, np.ascontiguousarray(self.vectors[start : start + BLOCK])

    def inside(self, box: Box) -> NDArray[np.bool_]:
        west, south, east, north = box
        latitude, longitude = self.places.T
        return (latitude >= south) & (latitude <= north) & (longitude >= west) & (longitude <= east)


# --- arms --------------------------------------------------------------------------------------------------


class Arm:
    """Builds into a folder, and asks what it has built."""

    values: tuple[int, ...] = (0,)  # how far to look, from little to much

    def __init__(self, data: Data, home: Path) -> None:
        self.data, self.home = data, home

    def build(self) -> None:
        """Write what `open` reads."""

    def open(self) -> None: ...

    def disk(self) -> int:
        return size(self.home)

    def ask(self, query: NDArray[np.float32], box: Box | None, value: int) -> list[int]:
        raise NotImplementedError


class Numpy(Arm):
    """A float32 matrix in memory."""

    def open(self) -> None:
        self.vectors = np.array(self.data.vectors)

    def disk(self) -> int:
        return self.data.vectors.nbytes

    def ask(self, query: NDArray[np.float32], box: Box | None, value: int) -> list[int]:
        chosen = None if box is None else np.flatnonzero(self.data.inside(box))
        cosines = (self.vectors if chosen is None else self.vectors[chosen]) @ query
        top = np.argpartition(-cosines, K)[:K]
        return (top if chosen is None else chosen[top]).tolist()


class Faiss(Arm):
    factory = "SQ8"

    def build(self) -> None:
        import faiss

        dim = self.data.vectors.shape[1]
        lists = 2 ** round(np.log2(np.sqrt(self.data.rows)))
        index = faiss.index_factory(dim, self.factory.format(lists=lists), faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(self.data.vectors[:100_000]))
        for _, block in self.data.blocks():
            index.add(block)
        faiss.write_index(index, str(self.home / "index"))

    def open(self) -> None:
        import faiss

        self.index = faiss.read_index(str(self.home / "index"))

    def parameters(self, selector: Any, value: int) -> Any:
        import faiss

        return faiss.SearchParameters(sel=selector)

    def ask(self, query: NDArray[np.float32], box: Box | None, value: int) -> list[int]:
        import faiss

        selector = None
        if box is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(self.data.inside(box), bitorder="little"))
        return self.index.search(query[None], K, params=self.parameters(selector, value))[1][0].tolist()


class IvfSq8(Faiss):
    factory = "IVF{lists},SQ8"
    values = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

    def parameters(self, selector: Any, value: int) -> Any:
        import faiss

        return faiss.SearchParametersIVF(sel=selector, nprobe=value)


class IvfRaBitQ(IvfSq8):
    """One bit a dimension; ten times as many candidates are compared in float16."""

    factory = "IVF{lists},RaBitQ,Refine(SQfp16)"

    def parameters(self, selector: Any, value: int) -> Any:
        import faiss

        self.base = super().parameters(selector, value)  # the outer one does not keep it
        return faiss.IndexRefineSearchParameters(k_factor=10, base_index_params=self.base)


class Hnsw(Faiss):
    factory = "HNSW32"
    values = (16, 32, 64, 128, 256, 512, 1024)

    def parameters(self, selector: Any, value: int) -> Any:
        import faiss

        return faiss.SearchParametersHNSW(sel=selector, efSearch=value)


class GeobindExact(Arm):
    recall: float | None = None

    def gallery(self) -> Any:
        from geobind import Gallery

        return Gallery(self.home / "gallery")

    def build(self) -> None:
        from geobind.gallery.schema import Origin, rows

        gallery = self.gallery()
        for start, block in self.data.blocks():
            names = [str(row) for row in range(start, start + len(block))]
            places = self.data.places[start : start + len(block)]
            gallery.add(rows(block, origin=Origin("satellite", "tower"), sources=names, locations=places))
        gallery.optimize()
        self.open()

    def open(self) -> None:
        """Make or map the matrix."""
        from geobind.gallery.matrix import matrix_of

        self.opened = self.gallery()
        if self.recall is None:
            matrix_of(self.opened)

    def ask(self, query: NDArray[np.float32], box: Box | None, value: int) -> list[int]:
        from geobind import Filter, search

        found = search(None, self.opened, query, filter=Filter(bbox=box), recall=self.recall)
        return [int(hit.source) for hit in found]


class GeobindIndex(GeobindExact):
    recall = RECALL

    def build(self) -> None:
        from geobind.gallery.index import build_index

        super().build()
        began = time.perf_counter()
        measured = build_index(self.opened)
        print(f"    index and its measure: {time.perf_counter() - began:.0f} s; {measured}")


ARMS: dict[str, type[Arm]] = {
    "numpy, float32": Numpy,
    "faiss Flat SQ8": Faiss,
    "geobind, exact": GeobindExact,
    "geobind, recall 0.98": GeobindIndex,
    "faiss IVF SQ8": IvfSq8,
    "faiss IVF RaBitQ, refined": IvfRaBitQ,
    "faiss HNSW": Hnsw,
}


# --- processes ---------------------------------------------------------------------------------------------


def memory() -> dict[str, float]:
    """MB of this process: its own, and of mapped files."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {name.strip(":"): int(value) for name, value, *_ in lines}
    own = kilobytes["Anonymous"]
    return {"own": own / 1e3, "mapped": (kilobytes["Rss"] - own) / 1e3}


def peak() -> float:
    """MB that this process has had at most; of a new process getrusage also counts its parent's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _build(arm: Arm, pipe: Connection) -> None:
    os.environ["GEOBIND_CACHE"] = str(arm.home / "cache")
    began = time.perf_counter()
    arm.build()
    pipe.send({"seconds": time.perf_counter() - began, "peak": peak(), "disk": arm.disk()})


def _serve(arm: Arm, pipe: Connection) -> None:
    """Answer (queries, boxes, value) by (row numbers, seconds), and None by the memory."""
    os.environ["GEOBIND_CACHE"] = str(arm.home / "cache")
    arm.open()
    while (asked := pipe.recv()) != "end":
        if asked is None:
            pipe.send(memory())
            continue
        found, seconds = [], []
        for query, box in zip(*asked[:2], strict=True):
            began = time.perf_counter()
            found.append(arm.ask(query, box, asked[2]))
            seconds.append(time.perf_counter() - began)
        pipe.send((found, seconds))


def _run(target: Callable[..., None], *arguments: Any) -> Any:
    """What a function sends from a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


class Served:
    """An arm in a process of its own."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.pipe, there = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_serve, args=(arm, there))
        self.process.start()
        there.close()

    def __call__(self, asked: Any) -> Any:
        self.pipe.send(asked)
        return None if asked == "end" else self.pipe.recv()


# --- the comparison ----------------------------------------------------------------------------------------


def boxes(data: Data) -> list[Box]:
    """Around rows, each with 1 % of the rows."""
    found = []
    for row in np.random.default_rng(0).choice(data.rows, BOXES, replace=False):
        y, x = data.places[row]
        away = np.maximum(np.abs(data.places[:, 0] - y), np.abs(data.places[:, 1] - x) / 2)
        half = float(np.quantile(away, SHARE))
        found.append((max(x - 2 * half, -180), max(y - half, -90), min(x + 2 * half, 180), min(y + half, 90)))
    return found


def tenths(data: Data, queries: NDArray[np.float32], asked: list[Box | None]) -> NDArray[np.float32]:
    """(queries,) the exact cosine of the true tenth."""
    best = np.full((len(queries), K), -2, np.float32)
    for start, block in data.blocks():
        cosines = queries @ block.T
        for i, box in enumerate(asked):
            if box is not None:
                west, south, east, north = box
                latitude, longitude = data.places[start : start + len(block)].T
                out = (latitude < south) | (latitude > north) | (longitude < west) | (longitude > east)
                cosines[i, out] = -2
        both = np.concatenate([best, cosines], 1)
        best = -np.partition(-both, K - 1, axis=1)[:, :K]
    return best.min(1)


def recall(
    data: Data, queries: NDArray[np.float32], found: list[list[int]], least: NDArray[np.float32], tie: float
) -> float:
    """Mean share of the ten that are right."""
    right = 0
    for query, rows, tenth in zip(queries, found, least, strict=True):
        known = [row for row in rows if row >= 0]
        right += int(np.sum(data.vectors[known] @ query >= tenth - tie))
    return right / (K * len(queries))


def compare(
    data: Data, queries: dict[str, NDArray[np.float32]], home: Path, count: int
) -> list[dict[str, Any]]:
    """Figures by arm, kind of query and filter."""
    arms = {}
    for name, kind in ARMS.items():
        own = home / name.replace(" ", "-").replace(",", "")
        marker = own / "build.json"
        if not marker.exists():
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir(parents=True)
            print(f"  building {name}", flush=True)
            marker.write_text(json.dumps(_run(_build, kind(data, own))))
        arms[name] = (Served(kind(data, own)), json.loads(marker.read_text()))
    some: list[Box | None] = list(boxes(data))
    figures = []
    for kind_of_query, vectors in queries.items():
        tuning, asked = vectors[-count:], vectors[:count]
        for label, filters in (("all", [None] * count), ("1 % box", (some * count)[:count])):
            least, other = tenths(data, asked, filters), tenths(data, tuning, filters)
            found: dict[str, list[list[int]]] = {name: [] for name in arms}
            seconds: dict[str, list[float]] = {name: [] for name in arms}
            chosen = {}
            for name, (served, _) in arms.items():
                for value in served.arm.values:
                    chosen[name] = value
                    if len(served.arm.values) == 1:
                        served((tuning[:10], filters[:10], value))  # warm
                    elif recall(data, tuning, served((tuning, filters, value))[0], other, 1e-4) >= RECALL:
                        break
            for start in range(0, count, 10):
                part = slice(start, start + 10)
                for name, (served, _) in arms.items():
                    rows, took = served((asked[part], filters[part], chosen[name]))
                    found[name] += rows
                    seconds[name] += took
            for name, (served, built) in arms.items():
                figures.append(
                    {
                        "arm": name, "query": kind_of_query, "rows": label, "value": chosen[name],
                        "p50": np.median(seconds[name]) * 1e3, "p95": np.quantile(seconds[name], 0.95) * 1e3,
                        "recall": recall(data, asked, found[name], least, 1e-6),
                        "recall 1e-4": recall(data, asked, found[name], least, 1e-4),
                        "memory": served(None), "built": built,
                    }
                )  # fmt: skip
                print("   ", name, kind_of_query, label, f"{figures[-1]['p50']:.1f} ms", flush=True)
    for served, _ in arms.values():
        served("end")
        served.process.join()
    return figures


# --- appended rows, evaluation -----------------------------------------------------------------------------


def _append(arm: GeobindIndex, pipe: Connection) -> None:
    """Seconds and milliseconds around 10,000 rows that are added to a copy of the gallery, each between two others."""
    from geobind import search
    from geobind.gallery.schema import Origin, rows

    os.environ["GEOBIND_CACHE"] = str(arm.home / "cache")
    gallery, known = arm.gallery(), np.asarray(arm.data.vectors[: ADDED + 1])
    names = [f"added {row}" for row in range(ADDED)]
    figures: dict[str, float] = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = run()
        figures[name] = time.perf_counter() - began
        return result

    def p50(recall: float | None) -> float:
        seconds = []
        for query in known[:40]:
            began = time.perf_counter()
            search(None, gallery, query, recall=recall)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds)) * 1e3

    search(None, gallery, known[0])
    added = known[:-1] + known[1:]
    figures["p50 before, ms"] = p50(RECALL)
    content = rows(added, origin=Origin("satellite", "tower"), sources=names)
    timed("add, s", lambda: gallery.add(content))
    first = timed("first exact search, s", lambda: search(None, gallery, added[0], k=1))
    other = timed("first approximate search, s", lambda: search(None, gallery, added[1], k=1, recall=RECALL))
    assert (first[0].source, other[0].source) == (names[0], names[1])
    figures["p50 with them, ms"] = p50(RECALL)
    timed("optimize, s", gallery.optimize)
    figures["p50 after optimize, ms"] = p50(RECALL)
    timed("first exact search after optimize, s", lambda: search(None, gallery, added[0], k=1))
    pipe.send(figures)


def _evaluate(data: Data, pipe: Connection) -> None:
    """Both directions of 10,000 x 10,000: ranks, metrics and intervals."""
    from geobind.retrieval.bootstrap import bootstrap
    from geobind.retrieval.metrics import partner_metrics, partner_values
    from geobind.retrieval.ranks import Partners, partner_ranks

    rows = np.array(data.vectors[:10_000])
    noise = np.random.default_rng(0).standard_normal(rows.shape, np.float32)
    queries = rows + 2 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    del noise
    partners = Partners.from_labels(range(len(rows)), range(len(rows)))
    before = peak()
    began = time.perf_counter()
    ranks = [partner_ranks(queries, rows, partners), partner_ranks(rows, queries, partners.transpose())]
    metrics = [partner_metrics(found) for found in ranks]
    seconds = time.perf_counter() - began
    most = peak()
    intervals = time.perf_counter()
    for found in ranks:
        bootstrap(partner_values(found), medians=("median_rank",))
    pipe.send({
        "seconds": seconds, "more MB": most - before, "all MB": most,
        "intervals, s": time.perf_counter() - intervals, "recall@10": [m["recall@10"] for m in metrics],
    })  # fmt: skip


def main() -> None:
    from rich.console import Console

    from geobind.console import add_row, size_text, table

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="what search_sets.py made; indexes go there too"
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sets", nargs="+", default=["tiles", "features"])
    asked = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    os.environ["OMP_NUM_THREADS"] = os.environ["LANCE_CPU_THREADS"] = str(asked.threads)
    console = Console(width=140)
    for name in asked.sets:
        data = Data(asked.folder / name, asked.rows)
        queries = {p.stem.removeprefix("queries-"): np.load(p) for p in data.folder.glob("queries-*.npy")}
        home = asked.folder / "built" / name / str(asked.rows)
        figures = compare(data, queries, home, asked.queries)
        columns = (
            "query",
            "rows",
            "arm",
            "looks",
            "p50 ms",
            "p95 ms",
            "recall@10",
            "to 1e-4",
            "own MB",
            "mapped MB",
        )
        shown = table(
            f"{name}: {data.vectors.shape[0]:,} x {data.vectors.shape[1]}", *columns, right=columns[3:]
        )
        for row in figures:
            numbers = (
                [row["p50"], row["p95"]],
                [row["recall"], row["recall 1e-4"]],
                list(row["memory"].values()),
            )
            cells = [f"{n:.{digits}f}" for part, digits in zip(numbers, (1, 3, 0), strict=True) for n in part]
            add_row(shown, row["query"], row["rows"], row["arm"], str(row["value"] or ""), *cells)
        console.print(shown)
        columns = ("arm", "build s", "peak MB", "disk")
        shown = table(f"{name}: building", *columns, right=columns[1:])
        for row in figures[: len(ARMS)]:
            built = row["built"]
            add_row(
                shown, row["arm"], f"{built['seconds']:.0f}", f"{built['peak']:.0f}", size_text(built["disk"])
            )
        console.print(shown)
        for kind in queries:
            p50 = {row["arm"]: row["p50"] for row in figures if (row["rows"], row["query"]) == ("all", kind)}
            ratio = p50["geobind, exact"] / p50["faiss Flat SQ8"]
            console.print(f"{kind}: geobind, exact, takes {ratio:.2f} times as long as faiss Flat SQ8")
        own = home / "geobind-recall-0.98"
        copy = home / "appended"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(own, copy)
        appended = _run(_append, GeobindIndex(data, copy))
        shutil.rmtree(copy)
        console.print(f"{ADDED:,} rows appended:", {key: round(value, 3) for key, value in appended.items()})
        console.print("10,000 x 10,000, both ways:", _run(_evaluate, data))
        gallery = own / "gallery" / "gallery.lance"
        index = size(gallery / "_indices")
        scale = 650e6 / asked.rows
        console.print(
            f"650 million tiles (the land at 0.6 m) of {data.vectors.shape[1]} numbers: table {size_text(scale * (size(gallery) - index))}, "
            f"index {size_text(scale * index)}, float16 matrix {size_text(650e6 * 2 * data.vectors.shape[1])}, "
            f"exact search {scale * p50['geobind, exact'] / 1e3:.0f} s a query on this machine"
        )


if __name__ == "__main__":
    main()

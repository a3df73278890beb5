"""How long the first answer takes: `import geobind` and `geobind --help`, each in a process of its own.

    python benchmarks/startup.py

Beside them an interpreter that does nothing, and `import torch`, which both leave for later. Rounds alternate, the
files are in the page cache after a first round that does not count, and the median and the slowest are printed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from rich.console import Console

from geobind.console import add_row, table

ROUNDS = 15
WAYS = {
    "python -c pass": (["-c", "pass"], None),
    "import geobind": (["-c", "import geobind"], 0.3),
    "geobind --help": (["-m", "geobind", "--help"], 0.5),
    "import torch": (["-c", "import torch"], None),
}


def main() -> None:
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(1 + ROUNDS):
        for way, (arguments, _) in WAYS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[way].append(time.perf_counter() - began)
    shown = table("Seconds of a process, start to end", "command", "median", "slowest", "goal", right=("median", "slowest", "goal"))  # fmt: skip
    for way, (_, goal) in WAYS.items():
        counted = seconds[way][1:]
        add_row(
            shown, way, f"{statistics.median(counted):.2f}", f"{max(counted):.2f}", "" if goal is None else f"{goal}"
        )  # fmt: skip
    Console().print(shown)


if __name__ == "__main__":
    main()

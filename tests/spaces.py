"""Small spaces and pairs that many tests use: random vectors with something to learn, no media."""

from __future__ import annotations

import numpy as np

from geobind import GeoBind, Pairs, build_tower

DIM, WIDTHS = 16, {"satellite": 24, "text": 16, "audio": 12, "image": 20}


def vector_pairs(*modalities: str, rows: int = 120, seed: int = 0, **options) -> Pairs:
    """Rows whose modalities are noisy random views of one hidden vector a row (the same in every call)."""
    hidden = np.random.default_rng(7).normal(size=(rows, 8))
    columns = {}
    for number, modality in enumerate(sorted(WIDTHS)):
        view = np.random.default_rng([number, 8]).normal(size=(8, WIDTHS[modality]))
        noise = np.random.default_rng([seed, number]).normal(size=(rows, WIDTHS[modality]))
        columns[modality] = (hidden @ view + 0.3 * noise).astype(np.float32)
    return Pairs.from_columns({m: columns[m] for m in modalities}, place=np.arange(rows), **options)


def vector_tower(modality: str, *, frozen: bool = False, dropout: float = 0.0):
    head = "none" if frozen else {"kind": "mlp", "hidden": 32, "dropout": dropout}
    return build_tower(
        "vector", modality=modality, dim=DIM, width=WIDTHS[modality], standardize=not frozen, head=head
    )


def vector_space(*modalities: str, dropout: float = 0.0) -> GeoBind:
    """Towers for these modalities; `text` is a frozen target without a head."""
    return GeoBind(DIM, [vector_tower(m, frozen=m == "text", dropout=dropout) for m in modalities])

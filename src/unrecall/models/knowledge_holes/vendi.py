"""The Vendi score: how many unlike things a set holds."""

import numpy as np
from scipy.special import entr


def vendi(vectors: np.ndarray) -> float:
    """exp(-sum of l log l), l the eigenvalues of K / n, K_ij the cosine of vectors i and j; `vectors` `[n, d]`.

    1 where all n point the same way, n where each is orthogonal to all others, 0 for an empty set.

    Reference: Friedman, Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", TMLR 2023,
    arXiv 2210.02410.
    """
    if not len(vectors):
        return 0.0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    kernel = unit @ unit.T
    np.fill_diagonal(kernel, 1.0)
    return float(np.exp(entr(np.linalg.eigvalsh(kernel / len(unit)).clip(0)).sum()))


def unlike(vectors: np.ndarray, most: float) -> list[int]:
    """The places of vectors whose cosine with every earlier one of them is at most `most`, the first vector first."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    places: list[int] = []
    for i, vector in enumerate(unit):
        if not places or float((unit[places] @ vector).max()) <= most:
            places.append(i)
    return places

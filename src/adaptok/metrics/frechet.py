"""The Fréchet distance of two sets of features, computed from statistics that can be stored and merged.

Legend: `N` clips, `F` features of a clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adaptok.utils.files import replacing

Floats = NDArray[np.float64]
Features = NDArray[np.floating[Any]]

RESAMPLES = 100
LEVEL = 0.95
MIN_CLIPS = 2048
"""Number of clips below which the Fréchet video distance says little about a model."""

KEY = "adaptok-statistics"
VERSION = 1


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and scatter matrix of features, in float64.

    Attributes:
        count: N.
        mean: `[F]`.
        scatter: `[F, F]`, the sum over clips of the outer product of the deviation from the mean.
        provenance: origin of the features: detector, protocol, frames and size. Statistics of different detectors
            cannot be combined.
    """

    count: int
    mean: Floats
    scatter: Floats
    provenance: dict[str, Any]

    @classmethod
    def of(cls, features: ArrayLike, provenance: dict[str, Any] | None = None) -> FeatureStatistics:
        """Compute the statistics of features `[N, F]`.

        Raises:
            ValueError: the shape differs, or a feature is not finite.
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"features of shape {values.shape}, expected [N, F] with N of at least 1")
        if not np.isfinite(values).all():
            raise ValueError("features are NaN or infinite; check that the clips are in [0, 1]")
        mean = values.mean(0)
        deviation = values - mean
        return cls(len(values), mean, deviation.T @ deviation, provenance or {})

    @property
    def covariance(self) -> Floats:
        """Covariance matrix `[F, F]`, normalized by N as in the official protocol."""
        return self.scatter / self.count

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """Combine the statistics of two sets (Chan et al. 1979, the pairwise update of mean and scatter).

        Raises:
            ValueError: the number of features or the detector differs.
        """
        self._check(other)
        total = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / total)
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.count * other.count / total)
        return FeatureStatistics(total, mean, scatter, self.provenance)

    def _check(self, other: FeatureStatistics) -> None:
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"statistics of {len(self.mean)} and {len(other.mean)} features, expected one detector's")
        mine, theirs = self.provenance.get("detector"), other.provenance.get("detector")
        if mine is not None and theirs is not None and mine != theirs:
            raise ValueError(f"statistics of the detectors {mine!r} and {theirs!r} do not mix; use one for both")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file atomically."""
        document = {"version": VERSION, "count": self.count, "provenance": self.provenance}
        with replacing(Path(path)) as temporary:
            save_file({"mean": self.mean, "scatter": self.scatter}, temporary, metadata={KEY: json.dumps(document)})

    @classmethod
    def load(cls, path: str | Path) -> FeatureStatistics:
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file has another format, or another version of it.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; evaluations write statistics-*.safetensors")
        try:
            with safe_open(path, "np") as file:
                document = json.loads((file.metadata() or {})[KEY])
                mean, scatter = file.get_tensor("mean"), file.get_tensor("scatter")
        except (SafetensorError, KeyError, ValueError):
            raise ValueError(f"{path}: not a file of feature statistics; 'adaptok evaluate' writes them") from None
        if document["version"] != VERSION:
            raise ValueError(f"{path}: version {document['version']} of the format, this program reads {VERSION}")
        return cls(document["count"], mean, scatter, document["provenance"])


def merge(sets: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Combine statistics, in their order.

    Raises:
        ValueError: there are none, or they differ in their number of features or detector.
    """
    statistics = list(sets)
    if not statistics:
        raise ValueError("no statistics to merge, expected at least one file")
    return reduce(FeatureStatistics.merged, statistics)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared Fréchet distance of the normal distributions with these means and covariances.

    The distance (Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X) is
    `|m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½)`. The trace of the matrix square root is computed as the sum of the
    singular values of `R_a' R_b`, where `C = R R'`, which stays real where a covariance is singular.

    Raises:
        ValueError: a set has fewer than two clips, or the number of features or the detector differs.
    """
    a._check(b)
    if min(a.count, b.count) < 2:
        raise ValueError(f"a Fréchet distance of {a.count} and {b.count} clips, expected at least two of each")
    if a.count == b.count and np.array_equal(a.mean, b.mean) and np.array_equal(a.scatter, b.scatter):
        return 0.0
    overlap = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    shift = a.mean - b.mean
    distance = shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap
    return max(0.0, float(distance))


def _root(covariance: Floats) -> Floats:
    """Factor `R [F, F]` of the covariance `R R'`."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(values.clip(min=0))
    return root


def frechet_interval(
    a: Features,
    b: Features | FeatureStatistics,
    *,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    paired: bool = False,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of the Fréchet distance of two sets of features.

    Whole groups of clips are drawn with replacement. Repeated clips raise the distance of every resample, so the
    resampled distances are shifted to have the distance of the sets as their mean before their percentiles are taken.

    Args:
        a: `[N, F]`.
        b: `[N', F]`, or statistics, which are not resampled.
        groups: group of each clip of both sets, such as its video. None draws clips.
        paired: draw the same clips of both sets, which have equally many.
        resamples: number of resamples.
        level: level of the interval.
        seed: seed of the draw.

    Returns:
        The ends of the interval, not below 0.
    """
    rng = np.random.default_rng(seed)
    sides = [np.asarray(x, np.float64) for x in (a, b) if not isinstance(x, FeatureStatistics)]
    members = [
        np.unique(groups[i], return_inverse=True)[1] if groups is not None else np.arange(len(x))
        for i, x in enumerate(sides)
    ]
    fixed = [(b.mean, _root(b.covariance))] if isinstance(b, FeatureStatistics) else []
    distances = []
    for _ in range(resamples):
        counts = [_draw(rng, index) for index in members]
        if paired:
            counts = counts[:1] * 2
        drawn = [_weighted_root(x, count) for x, count in zip(sides, counts, strict=True)] + fixed
        distances.append(_distance(*drawn[0], *drawn[1]))
    ones = [_weighted_root(x, np.ones(len(x))) for x in sides] + fixed
    centred = np.asarray(distances) - np.mean(distances) + _distance(*ones[0], *ones[1])
    low, high = np.quantile(centred, [(1 - level) / 2, (1 + level) / 2]).clip(min=0).tolist()
    return low, high


def _draw(rng: np.random.Generator, members: NDArray[np.intp]) -> Floats:
    """Number of times that each clip is drawn `[N]`, by drawing groups."""
    number = int(members.max()) + 1
    drawn: Floats = rng.multinomial(number, np.full(number, 1 / number))[members].astype(np.float64)
    return drawn


def _weighted_root(values: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Mean `[F]` of weighted features, and a factor R of their covariance `R R'`, of at most F columns."""
    values, counts = values[counts > 0], counts[counts > 0]
    mean = counts @ values / counts.sum()
    deviation = (values - mean) * np.sqrt(counts / counts.sum())[:, None]
    return mean, deviation.T if len(values) <= values.shape[1] else _root(deviation.T @ deviation)


def _distance(mean_a: Floats, root_a: Floats, mean_b: Floats, root_b: Floats) -> float:
    """Squared Fréchet distance from means and factors of covariances; see `frechet_distance`."""
    overlap = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    return float((mean_a - mean_b) @ (mean_a - mean_b) + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap)

"""The Fréchet distance of two sets of features, computed from statistics that can be stored and merged.

Legend: `N` clips, `F` features of a clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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

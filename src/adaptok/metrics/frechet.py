"""The Fréchet distance between two sets of features, from statistics that can be kept, merged and used again.

Legend: `N` clips, `F` features of a clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
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
    """Mean and scatter of features, in float64.

    Attributes:
        count: N.
        mean: `[F]`.
        scatter: `[F, F]`, the sum over clips of the outer product of what is above the mean.
        provenance: what the features are of: detector, protocol, data. Statistics of other detectors do not mix.
    """

    count: int
    mean: Floats
    scatter: Floats
    provenance: dict[str, Any]

    @classmethod
    def empty(cls, features: int, provenance: dict[str, Any] | None = None) -> FeatureStatistics:
        """Of no clip."""
        return cls(0, np.zeros(features), np.zeros((features, features)), provenance or {})

    @classmethod
    def of(cls, features: ArrayLike, provenance: dict[str, Any] | None = None) -> FeatureStatistics:
        """Of features `[N, F]`.

        Raises:
            ValueError: they have another shape, or one is not finite.
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"features of shape {values.shape}, expected [N, F] of one clip or more")
        if not np.isfinite(values).all():
            raise ValueError("features that are NaN or infinite; the detector cannot have seen clips in [0, 1]")
        mean = values.mean(0)
        above = values - mean
        return cls(len(values), mean, above.T @ above, provenance or {})

    @property
    def covariance(self) -> Floats:
        """`[F, F]`, divided by N, as the official protocol has it."""
        return self.scatter / max(self.count, 1)

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """Of both sets together (Chan et al. 1979: the pairwise update of mean and scatter).

        Raises:
            ValueError: they have another number of features, or are of another detector.
        """
        self._check(other)
        if not self.count or not other.count:
            return self if self.count else other
        total = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / total)
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / total)
        return FeatureStatistics(total, mean, scatter, self.provenance)

    def _check(self, other: FeatureStatistics) -> None:
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"statistics of {len(self.mean)} and {len(other.mean)} features, expected one detector's")
        mine, theirs = self.provenance.get("detector"), other.provenance.get("detector")
        if mine is not None and theirs is not None and mine != theirs:
            raise ValueError(f"statistics of the detectors {mine!r} and {theirs!r} do not mix; use one for both")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, beside its place first and then renamed."""
        document = {"version": VERSION, "count": self.count, "provenance": self.provenance}
        with replacing(Path(path)) as temporary:
            save_file({"mean": self.mean, "scatter": self.scatter}, temporary, metadata={KEY: json.dumps(document)})

    @classmethod
    def load(cls, path: str | Path) -> FeatureStatistics:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is none of these, or of a newer version.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file, expected statistics that an evaluation has written")
        try:
            with safe_open(path, "np") as file:
                document = json.loads((file.metadata() or {})[KEY])
                mean, scatter = file.get_tensor("mean"), file.get_tensor("scatter")
        except (SafetensorError, KeyError, ValueError):
            raise ValueError(f"{path}: not a file of feature statistics; 'adaptok evaluate' writes them") from None
        if document["version"] != VERSION:
            raise ValueError(f"{path}: version {document['version']} of the format, this program reads {VERSION}")
        return cls(document["count"], mean, scatter, document["provenance"])


def merge(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Statistics of all parts together, merged in their order.

    Raises:
        ValueError: there is none, or they do not mix.
    """
    merged: FeatureStatistics | None = None
    for part in parts:
        merged = part if merged is None else merged.merged(part)
    if merged is None:
        raise ValueError("no statistics to merge, expected one file or more")
    return merged


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared Fréchet distance of the normal distributions with these means and covariances (Dowson and Landau 1982,
    doi:10.1016/0047-259X(82)90077-X): `|m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½)`.

    The trace of the root of a product is the sum of the singular values of `R_a' R_b`, where `C = R R'`: nothing
    complex appears where a covariance is singular, and the distance of a set to itself is 0.

    Raises:
        ValueError: a set has fewer than two clips, or they do not mix.
    """
    a._check(b)
    if min(a.count, b.count) < 2:
        raise ValueError(f"a Fréchet distance of {a.count} and {b.count} clips, expected two of each or more")
    if a.count == b.count and np.array_equal(a.mean, b.mean) and np.array_equal(a.scatter, b.scatter):
        return 0.0
    overlap = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    apart = a.mean - b.mean
    distance = apart @ apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap
    return max(0.0, float(distance))


def _root(covariance: Floats) -> Floats:
    """`R [F, F]` with `R R'` the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(values.clip(min=0))
    return root

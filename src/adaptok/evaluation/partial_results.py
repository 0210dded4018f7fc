"""Partial results: what is measured of a few videos, each in a file of its own, so that an evaluation can be stopped,
go on, and be shared by processes. What follows from them is computed in the order of the plan, so nothing depends on
who measured what, or when.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adaptok.allocation.policy import Scope
from adaptok.config.model import Config
from adaptok.evaluation.protocols import ProtocolName
from adaptok.utils.files import replacing
from adaptok.utils.system import peak_memory
from adaptok.video.sources import FrameSource

KEY = "adaptok-part"
PLAN_FILE, PARTS_FOLDER = "plan.json", "parts"
_WAIT = 0.5
"""Seconds between two looks for the results of other processes."""


class PlannedVideo(Config):
    """A video of the plan. `path` is relative to the collection where it lies in it; `other` is what it is compared
    with; size and time of change tell whether a file is still the one that was measured."""

    path: str
    label: str | None = None
    other: str | None = None
    bytes: int = 0
    changed: int = 0
    other_bytes: int = 0
    other_changed: int = 0


class Plan(Config):
    """Everything that the numbers of an evaluation depend on."""

    kind: str
    """"tokenizer", "pairs" or "features"."""
    protocol: ProtocolName
    frames: int
    """Of a clip."""
    size: int | None
    """Pixels of the square; None for the videos' own sizes."""
    partial: bool = False
    """Whether a last clip may be shorter."""
    metrics: tuple[str, ...]
    detector: str | None
    """SHA-256 of the FVD's detector."""
    model: str | None = None
    model_hash: str | None = None
    """SHA-256 of the tokenizer's weights."""
    scorer_hash: str | None = None
    dtype: str | None = None
    scope: Scope | None = None
    budgets: tuple[float, ...] = ()
    batch_size: int | None = None
    """Only where results depend on it: the scope "batch"."""
    patch_size: int | None = None
    """Pixels of a side of the patches whose grid the edge ratio is measured on; None if it is not measured."""
    unit: int = 1
    """Videos of a partial result."""
    videos: tuple[PlannedVideo, ...]

    @property
    def units(self) -> int:
        return -(-len(self.videos) // self.unit)

    def of_unit(self, index: int) -> tuple[PlannedVideo, ...]:
        """The videos of one partial result."""
        return self.videos[index * self.unit : (index + 1) * self.unit]


@dataclass
class VideoRecord:
    """What is known of one video once it is measured.

    Attributes:
        name: as in the plan.
        clips: that were taken of it.
        rate: frames per second, as `numerator/denominator`; empty if it could not be read.
        sha256, other_sha256: of the files.
        skipped: why nothing of it is in the results.
        warning: what was wrong with it.
    """

    name: str
    label: str | None = None
    clips: int = 0
    rate: str = ""
    width: int = 0
    height: int = 0
    sha256: str | None = None
    other_sha256: str | None = None
    skipped: str | None = None
    warning: str | None = None

    @property
    def clip_rate(self) -> float:
        """Frames per second."""
        return float(Fraction(self.rate))


def note_source(record: VideoRecord, source: FrameSource) -> None:
    """Write down what is known of a video from reading it."""
    record.rate = f"{source.fps.numerator}/{source.fps.denominator}"
    record.width, record.height, record.warning = source.width, source.height, source.warning


@dataclass
class Part:
    """Results of a few videos.

    Attributes:
        videos: in the order of the plan.
        arrays: of their clips, one after the other.
        seconds: spent, by what on.
        memory: the most that the process that made it had resident so far, in bytes.
    """

    videos: list[VideoRecord]
    arrays: dict[str, NDArray[Any]]
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = field(default_factory=peak_memory)

    @property
    def clips(self) -> int:
        return sum(video.clips for video in self.videos)

    def save(self, path: Path) -> None:
        """Write it beside its place and rename it."""
        document = {"videos": [asdict(video) for video in self.videos], "seconds": self.seconds, "memory": self.memory}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        with replacing(path) as temporary:
            save_file(arrays, temporary, metadata={KEY: json.dumps(document)})

    @classmethod
    def load(cls, path: Path) -> Part:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            with safe_open(path, "np") as file:
                document = json.loads((file.metadata() or {})[KEY])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError):
            raise ValueError(f"{path}: a damaged partial result; remove it, and run the evaluation again") from None
        videos = [VideoRecord(**video) for video in document["videos"]]
        return cls(videos, arrays, document["seconds"], document["memory"])


class Task(Protocol):
    """Something that can measure the units of a plan."""

    plan: Plan

    def measure(self, unit: int) -> Part: ...


class Parts:
    """The folder of an evaluation.

    Args:
        folder: where the report will be; made if it is not there.
        plan: what is evaluated.
        force: throw away what is there of another plan.
        wait: seconds to wait until another process has written this plan; None writes it.

    Raises:
        ValueError: the folder holds an evaluation of another plan.
    """

    def __init__(self, folder: Path, plan: Plan, *, force: bool = False, wait: float | None = None) -> None:
        self.folder, self.plan = folder, plan
        file = folder / PLAN_FILE
        if wait is not None:
            self._await(file, wait)
            return
        (folder / PARTS_FOLDER).mkdir(parents=True, exist_ok=True)
        if file.exists() and (there := _read_plan(file)) != plan:
            if not force:
                raise ValueError(
                    f"{folder}: holds an evaluation with other {', '.join(_differences(there, plan))}; choose another"
                    " folder, or overwrite it with --force"
                )
            for old in (folder / PARTS_FOLDER).glob("*.safetensors"):
                old.unlink()
        if not file.exists() or force:
            with replacing(file) as temporary:
                temporary.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _await(self, file: Path, wait: float) -> None:
        until = time.monotonic() + wait
        while not (file.exists() and _read_plan(file) == self.plan):
            if time.monotonic() > until:
                raise ValueError(f"{file}: the first process has not written this plan within {wait:g} seconds")
            time.sleep(_WAIT)

    def path(self, unit: int) -> Path:
        return self.folder / PARTS_FOLDER / f"{unit:07d}.safetensors"

    def data_hash(self, *, originals: bool = False) -> str:
        """SHA-256 of the list of the videos' own, in the order of the plan: lines of 64 digits and the name.

        Args:
            originals: leave out what they are compared with.
        """
        digest = hashlib.sha256()
        for video in (video for part in self for video in part.videos):
            for found in (video.sha256, None if originals else video.other_sha256):
                digest.update(b"" if found is None else f"{found}  {video.name}\n".encode())
        return digest.hexdigest()

    def missing(self) -> list[int]:
        """Units that are not measured yet."""
        return [unit for unit in range(self.plan.units) if not self.path(unit).exists()]

    def __iter__(self) -> Iterator[Part]:
        """All results in the order of the plan, one at a time."""
        return (Part.load(self.path(unit)) for unit in range(self.plan.units))

    def measure(self, task: Task, rank: int = 0, world: int = 1, advance: Callable[[int], None] | None = None) -> None:
        """Measure what is missing: every `world`-th unit, from `rank`."""
        missing = set(self.missing())
        for unit in range(rank, self.plan.units, world):
            if unit in missing:
                task.measure(unit).save(self.path(unit))
            if advance is not None:
                advance(len(self.plan.of_unit(unit)))

    def wait(self, advance: Callable[[int], None] | None = None, check: Callable[[], None] = lambda: None) -> None:
        """Wait until other processes have measured the rest.

        Args:
            check: called now and then; raises where one of them is gone.
        """
        missing = set(self.missing())
        while missing:
            time.sleep(_WAIT)
            check()
            left = set(self.missing())
            if advance is not None:
                advance(sum(len(self.plan.of_unit(unit)) for unit in missing - left))
            missing = left


def _read_plan(file: Path) -> Plan:
    try:
        return Plan.parse(json.loads(file.read_text(encoding="utf-8")), str(file))
    except json.JSONDecodeError:
        raise ValueError(f"{file}: not the plan of an evaluation; choose another folder") from None


def _differences(a: Plan, b: Plan) -> list[str]:
    return [name for name in Plan.model_fields if getattr(a, name) != getattr(b, name)]


def planned(path: Path, root: Path, label: str | None = None, other: Path | None = None) -> PlannedVideo:
    """A video as the plan has it; one that is not there is planned all the same, and found missing when it is read."""
    size, changed = _stamp(path)
    other_size, other_changed = (0, 0) if other is None else _stamp(other)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return PlannedVideo(
        path=name,
        label=label,
        other=None if other is None else other.name,
        bytes=size,
        changed=changed,
        other_bytes=other_size,
        other_changed=other_changed,
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns

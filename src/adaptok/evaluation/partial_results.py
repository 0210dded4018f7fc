"""Partial results: measurements of a few videos, each in a file of its own.

They let an evaluation be interrupted, resumed, and divided among processes. All figures are computed from them in the
order of the plan, so nothing depends on which process measured what, or when.
"""

from __future__ import annotations

import hashlib
import json
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
from torch import Tensor

from adaptok.data.decoding import DECODING_ERRORS, describe_error
from adaptok.evaluation.plan import Plan
from adaptok.evaluation.protocols import ClipSelection
from adaptok.utils.files import replacing, sha256_of
from adaptok.utils.system import peak_memory
from adaptok.video.sources import FrameSource

KEY = "adaptok-part"
PLAN_FILE, RESULTS_FOLDER = "plan.json", "parts"
_INTERVAL = 0.5
"""Seconds between two checks for results of other processes."""


@dataclass
class VideoRecord:
    """Facts about one measured video.

    Attributes:
        name: path as in the plan.
        clips: number of measured clips.
        rate: frames per second as `numerator/denominator`; empty if the video could not be read.
        sha256, other_sha256: SHA-256 of its file, and of the file that it is compared with.
        skipped: reason why the video is not in the results.
        warning: damage of the video.
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
    def fps(self) -> float:
        """Frames per second."""
        return float(Fraction(self.rate))

    def read(self, path: Path, selection: ClipSelection) -> Iterator[Tensor]:
        """Read the clips of the video, and record everything about it. Errors are recorded, not raised."""
        self.clips, self.skipped = 0, None
        try:
            for clip in selection.clips(path, self.note):
                yield clip
                self.clips += 1
            self.sha256 = self.sha256 or sha256_of(path)
        except DECODING_ERRORS as error:
            if self.clips:
                self.warning = describe_error(error)
            else:
                self.skipped = describe_error(error)

    def note(self, source: FrameSource) -> None:
        """Record what reading the video has shown."""
        self.rate = f"{source.fps.numerator}/{source.fps.denominator}"
        self.width, self.height, self.warning = source.width, source.height, source.warning


@dataclass
class PartialResult:
    """Measurements of a few videos.

    Attributes:
        videos: in the order of the plan.
        arrays: one row for every clip of the videos, in their order.
        seconds: time spent on each kind of work.
        memory: peak resident memory of the process that measured them, in bytes.
    """

    videos: list[VideoRecord]
    arrays: dict[str, NDArray[Any]]
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = field(default_factory=peak_memory)

    @property
    def clips(self) -> int:
        """Number of clips of all videos."""
        return sum(video.clips for video in self.videos)

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        document = {"videos": [asdict(video) for video in self.videos], "seconds": self.seconds, "memory": self.memory}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        with replacing(path) as temporary:
            save_file(arrays, temporary, metadata={KEY: json.dumps(document)})

    @classmethod
    def load(cls, path: Path) -> PartialResult:
        """Read a file that `save` wrote.

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
    """Evaluation that measures the units of a plan."""

    plan: Plan

    def measure(self, unit: int) -> PartialResult: ...


class PartialResults:
    """Plan and partial results in the folder of an evaluation.

    Args:
        folder: folder of the report, created if it does not exist.
        plan: plan of the evaluation.
        force: discard results of another plan.
        wait: seconds to wait until another process has written this plan; None writes it.

    Raises:
        ValueError: the folder holds an evaluation with another plan.
    """

    def __init__(self, folder: Path, plan: Plan, *, force: bool = False, wait: float | None = None) -> None:
        self.folder, self.plan = folder, plan
        file = folder / PLAN_FILE
        if wait is not None:
            self._await_plan(file, wait)
            return
        (folder / RESULTS_FOLDER).mkdir(parents=True, exist_ok=True)
        if file.exists() and (present := _read_plan(file)) != plan:
            if not force:
                differences = [name for name in Plan.model_fields if getattr(present, name) != getattr(plan, name)]
                raise ValueError(
                    f"{folder}: holds an evaluation with other {', '.join(differences)}; choose another folder, or"
                    " overwrite it with --force"
                )
            for old in (folder / RESULTS_FOLDER).glob("*.safetensors"):
                old.unlink()
        if not file.exists() or force:
            with replacing(file) as temporary:
                temporary.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _await_plan(self, file: Path, wait: float) -> None:
        until = time.monotonic() + wait
        while not (file.exists() and _read_plan(file) == self.plan):
            if time.monotonic() > until:
                raise ValueError(f"{file}: the first process has not written this plan within {wait:g} seconds")
            time.sleep(_INTERVAL)

    def path(self, unit: int) -> Path:
        """File of a partial result."""
        return self.folder / RESULTS_FOLDER / f"{unit:07d}.safetensors"

    def data_hash(self, *, originals: bool = False) -> str:
        """SHA-256 of the list of videos: one line with the SHA-256 and the name of each file, in the order of the plan.

        Args:
            originals: leave out the videos that they are compared with.
        """
        digest = hashlib.sha256()
        for video in (video for result in self for video in result.videos):
            for sha256 in (video.sha256, None if originals else video.other_sha256):
                digest.update(b"" if sha256 is None else f"{sha256}  {video.name}\n".encode())
        return digest.hexdigest()

    def missing(self) -> list[int]:
        """Units that are not measured yet."""
        return [unit for unit in range(self.plan.units) if not self.path(unit).exists()]

    def __iter__(self) -> Iterator[PartialResult]:
        """Load all results in the order of the plan, one at a time."""
        return (PartialResult.load(self.path(unit)) for unit in range(self.plan.units))

    def measure(self, task: Task, rank: int = 0, world: int = 1, advance: Callable[[int], None] | None = None) -> None:
        """Measure every `world`-th unit from `rank` that is missing."""
        missing = set(self.missing())
        for unit in range(rank, self.plan.units, world):
            if unit in missing:
                task.measure(unit).save(self.path(unit))
            if advance is not None:
                advance(len(self.plan.of_unit(unit)))

    def wait(self, advance: Callable[[int], None] | None = None, check: Callable[[], None] = lambda: None) -> None:
        """Wait until other processes have measured the rest.

        Args:
            check: called repeatedly; raises if one of the processes has stopped.
        """
        missing = set(self.missing())
        while missing:
            time.sleep(_INTERVAL)
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

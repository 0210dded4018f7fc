"""Plans of token datasets: which videos go into which shard, fixed before any clip is encoded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO

from adaptok.codec.codec import AdapTok
from adaptok.config.base import Config
from adaptok.data.manifests import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Entry,
    find_collection,
    no_readable_message,
    relative_names,
)
from adaptok.data.statistics import collect_statistics
from adaptok.data.token_datasets import PLAN_FILE, sorted_labels
from adaptok.data.token_shards import TokenDatasetInfo, schema
from adaptok.tokenization.options import TokenOptions, describe_dataset
from adaptok.utils.files import claiming, replacing
from adaptok.utils.messages import one_line
from adaptok.video.container import DEFAULT_FPS
from adaptok.video.folders import list_frames

PLAN_VERSION = 2
_READABLE_VERSIONS = (1, PLAN_VERSION)  # version 1 lacks the sizes and times of change of videos


class PlannedVideo(Config):
    """A video of a plan."""

    source: str
    """Path, relative to the root of the collection if it lies in it."""
    label: str | None = None
    """Class of the video."""
    clips: int
    """Expected number of clips. The frame counts of some containers are wrong."""
    bytes: int | None = None
    """Size of the file, or None if unknown."""
    changed: int | None = None
    """Time of the last change of the file, in nanoseconds since 1970, or None if unknown."""

    def check(self, path: Path) -> None:
        """Check that the file is the one that was planned.

        Raises:
            FileNotFoundError: It was removed.
            ValueError: It was changed.
        """
        if not path.exists():  # not treated as broken, because the disk may just be unmounted
            raise FileNotFoundError(f"{path}: removed since the dataset was planned; restore it to resume")
        if self.changed is not None and _stamp(path) != (self.bytes, self.changed):
            raise ValueError(
                f"{path}: changed since the dataset was planned; restore it with its time of change, or tokenize the"
                " collection into another folder"
            )


class PlanSettings(Config):
    """Arguments that a dataset depends on. Resuming requires the same ones."""

    source: str
    """Folder, list or index of the videos."""
    root: str
    """Folder of the relative paths."""
    info: TokenDatasetInfo
    """Properties of the dataset."""
    dtype: str
    """Floating-point type of the computation."""
    batch_size: int
    """Number of clips encoded at once."""
    limit: int | None
    """Maximum number of clips per video."""
    labels: bool
    """Whether class labels are stored."""
    scores: bool
    """Whether predicted distortions are stored."""
    shard_clips: int
    """Number of clips per shard."""


class TokenPlan(PlanSettings):
    """Plan of a dataset, `plan.json` in its folder. Together with the model it determines all shards."""

    version: int = PLAN_VERSION
    """Version of the format."""
    videos: tuple[PlannedVideo, ...]
    """Videos in the order of the dataset."""
    shards: tuple[int, ...]
    """Index of the first video of each shard."""
    broken: dict[str, str]
    """Reason for each file that could not be opened."""

    def videos_of(self, shard: int) -> Sequence[PlannedVideo]:
        """Return the videos of a shard."""
        stop = self.shards[shard + 1] if shard + 1 < len(self.shards) else None
        return self.videos[self.shards[shard] : stop]

    def clips(self, shard: int) -> int:
        """Return the expected number of clips of a shard."""
        return sum(video.clips for video in self.videos_of(shard))

    def path(self, video: PlannedVideo) -> Path:
        """Return the path of a video."""
        return Path(self.root) / video.source

    def checksum(self, shard: int) -> str:
        """Return the SHA-256 of the names, labels and sizes of the videos of a shard."""
        videos = [(video.source, video.label, video.bytes) for video in self.videos_of(shard)]
        return hashlib.sha256(json.dumps(videos).encode()).hexdigest()

    def write(self, file: IO[bytes]) -> None:
        """Write the plan to an open file."""
        file.write((self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def read(cls, out: Path) -> TokenPlan:
        """Read the plan in a folder. Raise a ValueError if it is damaged, or its format version is not supported."""
        path = out / PLAN_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            version = document["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}: not a plan of 'adaptok tokenize'; choose another folder") from None
        if version not in _READABLE_VERSIONS:
            raise ValueError(f"{path}: plan of version {one_line(repr(version))}, expected version {PLAN_VERSION}")
        return cls.parse(document, str(path))


def shard_path(out: Path, number: int) -> Path:
    """Return the path of a shard. The order of the names is the order of the shards."""
    return out / f"shard-{number:06d}.parquet"


def make_plan(
    source: str | Path,
    out: Path,
    codec: AdapTok,
    options: TokenOptions,
    *,
    root: str | Path | None = None,
    on_open: Callable[[int], None] | None = None,
) -> TokenPlan:
    """Read the plan in `out`, or make a new one and write it there. The paths in the plan of a collection that was
    moved, with its files unchanged, are replaced.

    Raises:
        FileNotFoundError: The source does not exist.
        ValueError: The options do not fit the model, no video is readable, `out` holds something else or was begun
            with other arguments, or the videos or their labels were changed since they were planned.
    """
    info = describe_dataset(codec, options)
    schema(info)  # fails without pyarrow, before any work is done
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or list of files")
    folder = root if root is not None else source if source.is_dir() else source.parent
    settings = PlanSettings(
        source=str(source.resolve()),
        root=str(Path(folder).resolve()),
        info=info,
        dtype=str(codec.dtype).removeprefix("torch."),
        batch_size=options.batch_size,
        limit=options.limit,
        labels=options.labels,
        scores=options.scores and codec.config.scorer is not None,
        shard_clips=options.shard_clips,
    )
    if not _has_plan(out):
        new = _new_plan(settings, collect_statistics(_unique_entries(source, root), on_open))
        out.mkdir(parents=True, exist_ok=True)
        with claiming(out / PLAN_FILE, wait=True) as file:
            if file is not None:
                new.write(file)
    plan = _relocate(TokenPlan.read(out), settings, out)
    unused = ["class_names"]  # follow from the videos
    if options.scope != "batch":
        unused.append("batch_size")  # the result does not depend on it
    if difference := settings.first_difference(plan, unused):
        name, given, planned = difference
        raise ValueError(
            f"{out}: begun with {name} {planned!r}, not {given!r}; use the same value, or choose another folder"
        )
    _check_collection(plan, root)
    return plan


def _relocate(plan: TokenPlan, settings: PlanSettings, out: Path) -> TokenPlan:
    """Return the plan with the given paths if its collection was moved there, otherwise the same plan."""
    moved = plan.model_copy(update={"source": settings.source, "root": settings.root})
    if plan.root == settings.root or any(
        video.changed is None or _stamp(moved.path(video)) != (video.bytes, video.changed) for video in plan.videos
    ):
        return plan
    with replacing(out / PLAN_FILE) as temporary, open(temporary, "wb") as file:
        moved.write(file)
    return moved


def _check_collection(plan: TokenPlan, root: str | Path | None) -> None:
    """Raise a ValueError if a planned video, or its label in the collection, is another one now. Removed videos only
    matter to shards that are missing."""
    labels = {video.source: video.label for video in plan.videos}
    for video in plan.videos:
        with contextlib.suppress(FileNotFoundError):
            video.check(plan.path(video))
    for name, entry in _list_collection(plan, root) if plan.labels else ():
        if labels.get(name, entry.label) != entry.label:
            raise ValueError(
                f"{name}: labelled {entry.label!r}, but planned as {labels[name]!r}; restore the label, or tokenize the"
                " collection into another folder"
            )


def _list_collection(plan: TokenPlan, root: str | Path | None) -> Iterator[tuple[str, Entry]]:
    """Yield the files of the collection with their names in the plan."""
    try:
        entries = find_collection(plan.source, root)
    except FileNotFoundError:  # all files of a list were removed
        return
    yield from zip(relative_names([entry.path for entry in entries], Path(plan.root)), entries, strict=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return the size and the time of the last change of a file, or of a folder of frames. None if it is missing."""
    try:
        stamps = [file.stat() for file in (list_frames(path) if path.is_dir() else [path])]
    except OSError:
        return None
    return sum(stamp.st_size for stamp in stamps), max((stamp.st_mtime_ns for stamp in stamps), default=0)


def find_unplanned(plan: TokenPlan, root: str | Path | None) -> list[str]:
    """Return the files of the collection that were added after planning."""
    planned = {video.source for video in plan.videos} | plan.broken.keys()
    return [name for name, _ in _list_collection(plan, root) if name not in planned]


def _has_plan(out: Path) -> bool:
    """Return whether `out` holds a plan. Raise a ValueError if it is a file, or a folder with other files."""
    if not out.exists():
        return False
    if (out / PLAN_FILE).exists():
        return True
    if not out.is_dir():
        raise ValueError(f"{out}: a file, expected a folder to write")
    other = next((path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")), None)
    if other is not None:
        raise ValueError(f"{out}: holds {other} and no {PLAN_FILE}; choose a new or empty folder")
    return False


def _unique_entries(source: Path, root: str | Path | None) -> list[Entry]:
    entries: dict[Path, Entry] = {}
    for entry in find_collection(source, root):
        first = entries.setdefault(entry.path, entry)
        if first.label != entry.label:
            raise ValueError(
                f"{source}: {entry.path} is listed as {first.label!r} and as {entry.label!r}; remove one of them"
            )
    if not entries:
        raise ValueError(
            f"{source}: no video in it; expected files {', '.join(sorted(VIDEO_SUFFIXES))}, or folders of frames"
            f" {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return list(entries.values())


def _new_plan(settings: PlanSettings, entries: Sequence[Entry]) -> TokenPlan:
    names = relative_names([entry.path for entry in entries], Path(settings.root))
    broken = {name: entry.error for name, entry in zip(names, entries, strict=True) if entry.error is not None}
    videos = [
        PlannedVideo(
            source=name,
            label=entry.label if settings.labels else None,
            clips=_expected_clips(entry, settings),
            **dict(zip(("bytes", "changed"), _stamp(entry.path) or (), strict=False)),
        )
        for name, entry in zip(names, entries, strict=True)
        if entry.error is None
    ]
    if not videos:
        raise ValueError(no_readable_message("video", settings.source, broken))
    shards = tuple(_shard_starts(videos, settings.shard_clips))
    classes = tuple(sorted_labels(video.label for video in videos))
    settings = settings.model_copy(update={"info": settings.info.model_copy(update={"class_names": classes})})
    return TokenPlan.parse({**settings.model_dump(), "videos": tuple(videos), "shards": shards, "broken": broken})


def _expected_clips(entry: Entry, settings: PlanSettings) -> int:
    info = settings.info
    frames = Fraction(entry.frames or 1)
    if info.settings.fps is not None and not entry.path.is_dir():  # frames in a folder are not resampled
        frames = frames * Fraction(info.settings.fps) / (entry.fps or DEFAULT_FPS)
    count = max(1, math.floor((frames - info.frames) / info.stride) + 1)
    return count if settings.limit is None else min(count, settings.limit)


def _shard_starts(videos: Sequence[PlannedVideo], max_clips: int) -> Iterator[int]:
    """Yield the first videos of shards with up to `max_clips` clips, or with a single longer video."""
    clips = math.inf
    for index, video in enumerate(videos):
        if clips + video.clips > max_clips:
            yield index
            clips = 0
        clips += video.clips

"""What a token dataset will be: its videos and their shards, settled before the first clip is computed.

Legend: `T` frames of a clip, `G` blocks, `K` latents of a block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from adaptok.allocation.policy import ClipLayout, LengthPolicy, Scope
from adaptok.codec.codec import AdapTok
from adaptok.config.model import Config, ModelConfig, Positive
from adaptok.data.manifests import VIDEO_SUFFIXES, Entry, find_entries, no_readable_message
from adaptok.data.statistics import collect_statistics
from adaptok.data.token_datasets import TokenDatasetInfo, TokenizationSettings, schema
from adaptok.utils.files import claiming
from adaptok.video.container import MAX_FPS
from adaptok.video.geometry import FITS, Fit

PLAN_FILE = "plan.json"
PLAN_VERSION = 1


class TokenOptions(Config):
    """What is taken of the videos, and how lengths are chosen."""

    budget: float | tuple[float, ...] | None = None
    """Tokens per clip on average, or per block for each block index with the scope "batch"; None keeps everything,
    unless there is a target."""
    target: float | None = None
    """Instead of a budget: the predicted distortion to reach with the fewest tokens."""
    scope: Scope = "video"
    """What shares the budget: all clips of a "video", each "clip", the same block of all clips in a "batch", or a
    "stream", which needs clips that follow each other."""
    uniform: bool = False
    """Spend evenly, whatever the scores say."""
    fit: Fit = "crop"
    """How frames come to the model's square."""
    rate: Annotated[float, Field(gt=0, le=MAX_FPS)] | None = None
    """Frames per second to sample videos at; None: their own."""
    stride: Positive | None = None
    """Frames between the starts of clips; None: T, so that they follow each other."""
    limit: Positive | None = None
    """Most clips of a video, its first ones."""
    condition_frames: Annotated[int, Field(ge=0)] = 0
    """First frames that become the condition of frame prediction; 0 for none."""
    labels: bool = True
    """Keep the classes of the videos."""
    scores: bool = True
    """Keep predicted distortions."""
    shard_clips: Positive = 1024
    """Clips after which a shard ends with the present video."""
    batch_size: Positive = 4
    """Clips computed at once."""


class PlannedVideo(Config):
    """A unit of work.

    source: its path, relative to the collection where it lies in it.
    clips: how many to expect; containers may be wrong about their frames.
    """

    source: str
    label: str | None = None
    clips: int


class TokenPlan(Config):
    """Of a dataset; `plan.json` in its folder. The shards follow from it and the model."""

    version: int = PLAN_VERSION
    source: str
    """Folder, list or index that the videos are of."""
    root: str
    """Where relative paths start."""
    info: TokenDatasetInfo
    """What all shards say of themselves."""
    dtype: str
    """Precision of the computation."""
    batch_size: int
    """Clips computed at once."""
    limit: int | None
    """Most clips of a video."""
    labels: bool
    """Whether classes are kept."""
    scores: bool
    """Whether predicted distortions are kept."""
    shard_clips: int
    """Clips after which a shard ends with the present video."""
    videos: tuple[PlannedVideo, ...]
    """In order."""
    shards: tuple[int, ...]
    """First video of each shard."""
    broken: dict[str, str]
    """Files that could not be opened, with the reason."""

    def videos_of(self, number: int) -> Sequence[PlannedVideo]:
        """Those of a shard."""
        stop = self.shards[number + 1] if number + 1 < len(self.shards) else None
        return self.videos[self.shards[number] : stop]

    def clips(self, number: int) -> int:
        """To expect in a shard."""
        return sum(video.clips for video in self.videos_of(number))

    def path(self, video: PlannedVideo) -> Path:
        return Path(self.root) / video.source

    @classmethod
    def read(cls, out: Path) -> TokenPlan:
        """That of a dataset.

        Raises:
            ValueError: it is damaged, or of another version.
        """
        path = out / PLAN_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            version = document["version"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: not a plan of 'adaptok tokenize'; choose another folder") from None
        if version != PLAN_VERSION:
            raise ValueError(f"{path}: version {version!r} of the plan, this program reads {PLAN_VERSION}")
        return cls.parse(document, str(path))


@dataclass(frozen=True)
class Choice:
    """How lengths of clips are chosen where the first blocks are the condition's, and keep everything.

    Attributes:
        policy: for the blocks that are free, with their share of the budget.
        layout: of the free blocks of a clip.
        first_block: of the free ones.
    """

    policy: LengthPolicy
    layout: ClipLayout
    first_block: int

    @classmethod
    def of(cls, info: TokenDatasetInfo, model: ModelConfig) -> Choice:
        settings, whole, first = info.settings, ClipLayout.of(model), info.first_block
        budget = settings.budget
        # the scopes "batch" and "stream" count by block, and a list is one of blocks: there is nothing to share
        share = (whole.blocks - first) / whole.blocks
        policy = LengthPolicy(
            budget if budget is None or isinstance(budget, tuple) else budget * share,
            settings.scope,
            settings.target,
            settings.uniform,
        )
        return cls(policy, replace(whole, blocks=whole.blocks - first), first)


def shard_path(out: Path, number: int) -> Path:
    """Where a shard lies; names sort in order."""
    return out / f"shard-{number:06d}.parquet"


def make_plan(
    source: str | Path,
    out: Path,
    codec: AdapTok,
    options: TokenOptions,
    *,
    root: str | Path | None = None,
    looked: Callable[[int], None] | None = None,
) -> TokenPlan:
    """The plan of `out`: the one that is there, or a new one, which is written.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: options do not fit the model; there is no readable video; `out` holds something else, or was begun
            with other arguments.
    """
    info = _describe(codec, options)
    schema(info)  # tells that pyarrow is missing, before any work is done
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or list of files")
    start = root if root is not None else source if source.is_dir() else source.parent
    frame: dict[str, Any] = {
        "source": str(source.resolve()),
        "root": str(Path(start).resolve()),
        "info": info,
        "dtype": str(codec.dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
        "limit": options.limit,
        "labels": options.labels,
        "scores": options.scores and codec.config.scorer is not None,
        "shard_clips": options.shard_clips,
    }
    if not _begun(out):
        entries = collect_statistics(_entries(source, root), looked)
        new = _new_plan(frame, entries, options)
        out.mkdir(parents=True, exist_ok=True)
        with claiming(out / PLAN_FILE, wait=True) as file:
            if file is not None:
                file.write((new.model_dump_json(indent=1) + "\n").encode())
    plan = TokenPlan.read(out)
    if difference := _difference(frame, plan):
        raise ValueError(f"{out}: begun with {difference}; give the same, or choose another folder")
    return plan


def unplanned(plan: TokenPlan, root: str | Path | None) -> list[str]:
    """Files that the source has, but the plan has not."""
    known = {video.source for video in plan.videos} | plan.broken.keys()
    entries = find_entries(plan.source, VIDEO_SUFFIXES, root)
    return [name for name in (_name(entry.path, Path(plan.root)) for entry in entries) if name not in known]


def _begun(out: Path) -> bool:
    """Whether a dataset was begun in this folder; ValueError if it may not be."""
    if not out.exists() or (out / PLAN_FILE).exists():
        return out.exists()
    if not out.is_dir():
        raise ValueError(f"{out}: a file, expected a folder to write")
    other = next((path.name for path in sorted(out.iterdir()) if not path.name.startswith(".")), None)
    if other is not None:
        raise ValueError(f"{out}: holds {other} and no {PLAN_FILE}, so another dataset; choose a new or empty folder")
    return False


def _describe(codec: AdapTok, options: TokenOptions) -> TokenDatasetInfo:
    """What the shards will say; ValueError where options do not fit the model."""
    model, c = codec.config, codec.config.tokenizer
    policy = LengthPolicy(options.budget, options.scope, options.target, options.uniform)
    policy.check(codec.layout)
    if policy.needs_scores and model.scorer is None:
        raise ValueError(f"the model {model.name!r} has no scorer; spend the budget uniformly, or use another")
    if options.fit not in FITS:
        raise ValueError(f"fit {options.fit!r}, expected one of {', '.join(FITS)}")
    stride = c.frames if options.stride is None else options.stride
    if options.scope == "stream" and stride != c.frames:
        raise ValueError(
            f"stride {stride} with the scope 'stream', expected {c.frames}: its clips follow each other; take another"
            " scope for clips that overlap or lie apart"
        )
    if options.condition_frames >= c.frames:
        raise ValueError(
            f"{options.condition_frames} frames of the condition, expected 1 to {c.frames - 1} of the {c.frames} frames"
            " of a clip, or 0 for none"
        )
    settings = TokenizationSettings(
        budget=options.budget,
        scope=options.scope,
        target=options.target,
        uniform=options.uniform,
        fit=options.fit,
        fps=options.rate,
    )
    return TokenDatasetInfo(
        model=model.name,
        model_hash=codec.weights_hash,
        codebook_size=c.quantizer.codebook_size,
        levels=c.quantizer.levels if c.quantizer.kind == "scalar" else (),
        latents=c.latents,
        blocks=c.blocks,
        block_frames=c.temporal_patch_size,
        size=c.size,
        length_step=codec.length_step,
        condition_frames=options.condition_frames,
        stride=stride,
        settings=settings,
    )


def _entries(source: Path, root: str | Path | None) -> list[Entry]:
    """Files of a collection, each once."""
    entries: dict[Path, Entry] = {}
    for entry in find_entries(source, VIDEO_SUFFIXES, root):
        known = entries.setdefault(entry.path, entry)
        if known.label != entry.label:
            raise ValueError(f"{source}: {entry.path} is listed as {known.label!r} and as {entry.label!r}; keep one")
    if not entries:
        raise ValueError(f"{source}: no video in it; expected files {', '.join(sorted(VIDEO_SUFFIXES))}")
    return list(entries.values())


def _new_plan(frame: dict[str, Any], entries: Sequence[Entry], options: TokenOptions) -> TokenPlan:
    root, info = Path(frame["root"]), frame["info"]
    broken = {_name(entry.path, root): entry.error for entry in entries if entry.error is not None}
    videos = [
        PlannedVideo(
            source=_name(entry.path, root),
            label=entry.label if options.labels else None,
            clips=_expected(entry, info, options),
        )
        for entry in entries
        if entry.error is None
    ]
    if not videos:
        raise ValueError(no_readable_message("video", frame["source"], broken))
    return TokenPlan(**frame, videos=tuple(videos), shards=tuple(_shards(videos, options.shard_clips)), broken=broken)


def _name(path: Path, root: Path) -> str:
    """A path relative to the collection where it lies in it."""
    for place in (path.absolute(), path.parent.resolve() / path.name):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return str(path.absolute())


def _expected(entry: Entry, info: TokenDatasetInfo, options: TokenOptions) -> int:
    """Clips of a video, as far as its container knows its frames."""
    frames = Fraction(entry.frames or 1)
    if options.rate is not None:
        frames = frames * Fraction(options.rate) / (entry.fps or 25)
    count = max(1, math.floor((frames - info.frames) / info.stride) + 1)
    return count if options.limit is None else min(count, options.limit)


def _shards(videos: Sequence[PlannedVideo], most: int) -> Iterator[int]:
    """First videos of shards that hold up to `most` clips, or one video."""
    clips = most
    for index, video in enumerate(videos):
        if clips + video.clips > most or index == 0:
            yield index
            clips = 0
        clips += video.clips


def _difference(wanted: dict[str, Any], plan: TokenPlan) -> str:
    """The first argument that a plan has otherwise, in words; empty where there is none."""
    found, asked = _flat(plan.model_dump(include=set(wanted))), _flat({**wanted, "info": wanted["info"].model_dump()})
    if found["scope"] != "batch":
        del asked["batch_size"]  # nothing depends on it
    for name, value in asked.items():
        if found.get(name) != value:
            return f"{name} {found.get(name)!r}, not {value!r}"
    return ""


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    """Fields of nested mappings side by side."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat

"""`adaptok tokenize COLLECTION [-o FOLDER]`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional

from adaptok.cli.inputs import note_images
from adaptok.cli.options import Computation, FrameSampling, Lengths, Messages, group, option
from adaptok.cli.output import list_broken, progress, refuse_streams, show, warn
from adaptok.config.choices import Engine

if TYPE_CHECKING:
    from adaptok.tokenization import TokenizationResult, TokenOptions, TokenPlan


@dataclass(kw_only=True)
class Workload:
    """How the work is divided."""

    shard_clips: int = 1024
    """Clips per shard. The clips of one video stay in one shard."""
    workers: int = 1
    """Number of processes. Each has a model of its own and one decoding thread."""
    engine: Engine = "local"
    """local runs processes on this machine; ray uses a Ray cluster, or starts Ray on this machine."""


@dataclass(kw_only=True)
class TokenLengths(Lengths):
    """How many tokens are kept, and in which blocks."""

    budget: Annotated[float | None, option("N")] = None
    """Tokens per clip, on average. All tokens are kept if neither a budget nor a target is given. With the scope batch
    and an official model, the budgets of the official table (64, 128 … 512 tokens per block, or four times as many per
    clip) are spread over the blocks of a clip as the table says: 256 gives 456, 242, 172 and 150."""


@dataclass(kw_only=True)
class Clips:
    """Which clips are taken, and what is stored with them."""

    root: Annotated[Path | None, option("FOLDER")] = None
    """Folder that relative paths of a list refer to. The default is the folder of the list."""
    stride: Annotated[int | None, option("N")] = None
    """Frames between the starts of consecutive clips. The default is the length of a clip, so that clips do not
    overlap. 1 starts a clip at every frame."""
    limit: Annotated[int | None, option("N")] = None
    """Take at most this many clips per video, from its beginning. All clips are taken by default."""
    condition_frames: int = 0
    """Also store the token ids of this many first frames of each clip, as the condition of frame prediction."""
    labels: bool = True
    """Store the class labels that the folders or the list give."""
    scores: bool = True
    """Store the predicted distortions."""


@dataclass(kw_only=True)
class Tokenize:
    """Encode a collection of videos into a token dataset, for training generators."""

    notes: ClassVar[str] = (
        "The dataset consists of Parquet shards. An interrupted run resumes when it is started again with the "
        "same arguments, and several machines may work on the same folder at once. Files that cannot be read are "
        "listed in broken.json."
    )

    collection: Annotated[Positional[Path], option("COLLECTION")]
    """Folder, searched recursively for videos, or for folders of frames if there are none; list of files (.csv, .txt);
    or index written by 'adaptok data index'."""
    output: Annotated[Path | None, option("FOLDER", "-o")] = None
    """Folder to write: new, empty, or one that holds the same dataset in part. The default is the name of the
    collection followed by -tokens, in the current folder."""
    lengths: Annotated[TokenLengths, group("length")] = field(default_factory=TokenLengths)
    frames: Annotated[FrameSampling, group("frame")] = field(default_factory=FrameSampling)
    clips: Annotated[Clips, group("clip")] = field(default_factory=Clips)
    workload: Annotated[Workload, group("workload")] = field(default_factory=Workload)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.tokenization import tokenize

        refuse_streams(self.collection)
        if self.collection.is_dir():
            note_images(self.messages, self.collection, self.frames.fps)
        out = self.output or Path(f"{self.collection.resolve().stem}-tokens")
        refuse_streams(out)
        codec = self.computation.load()
        options = self._options()
        alone = self.workload.workers == 1 and self.workload.engine == "local"
        model = codec if alone else self.computation.model
        del codec  # several processes load models of their own
        with ExitStack() as opening, ExitStack() as tokenizing:

            def start(_: TokenPlan, clips: int) -> Callable[[int], None]:
                opening.close()
                return tokenizing.enter_context(progress(self.messages, "tokenizing", clips, "clips"))

            result = tokenize(
                self.collection,
                out,
                model,
                options,
                root=self.clips.root,
                device=self.computation.device,
                dtype=self.computation.dtype,
                workers=self.workload.workers,
                engine=self.workload.engine,
                on_open=opening.enter_context(progress(self.messages, "opening", None, "files")),
                on_start=start,
            )
        self._report(result)

    def _options(self) -> TokenOptions:
        from adaptok.tokenization import TokenOptions

        return TokenOptions.parse(
            {
                "budget": self.lengths.budget,
                "target": self.lengths.target,
                "scope": self.lengths.scope,
                "uniform": self.lengths.uniform,
                "effort": self.lengths.effort,
                "fit": self.frames.fit,
                "fps": self.frames.fps,
                "stride": self.clips.stride,
                "limit": self.clips.limit,
                "condition_frames": self.clips.condition_frames,
                "labels": self.clips.labels,
                "scores": self.clips.scores,
                "shard_clips": self.workload.shard_clips,
                "batch_size": self.computation.batch_size,
            },
            "adaptok tokenize",
        )

    def _report(self, result: TokenizationResult) -> None:
        if result.unplanned:
            warn(
                f"{len(result.unplanned)} files were added after the dataset was planned and are skipped, such as"
                f" {result.unplanned[0]}; tokenize them into another folder"
            )
        document = {
            "out": str(result.out),
            "clips": result.clips,
            "tokens": result.tokens,
            "shards": result.shards,
            "written": result.written,
            "broken": result.broken,
            "unplanned": result.unplanned,
        }
        text = (
            f"{result.out}: {result.clips} clips, {result.tokens} tokens, {result.shards} shards,"
            f" {result.written} of them written now"
        )
        if result.broken:
            text += f"; {len(result.broken)} files cannot be read completely:{list_broken(result.broken)}"
        show(self.messages, document, text)

"""`adaptok tokenize SRC --out DIR`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.cli.common import Choosing, Computing, progress, warn
from adaptok.cli.encode import parse_one
from adaptok.codec.codec import AdapTok
from adaptok.tokenization import Engine, TokenizationResult, TokenOptions, TokenPlan, tokenize


@dataclass(kw_only=True)
class Tokenize(Choosing, Computing):
    """Write a token dataset of a collection: Parquet shards of ids, lengths, classes and scores, for training on.

    Started again with the same arguments, it goes on where it was stopped; on several machines at once, they share the
    work. Files that cannot be read are listed in OUT/broken.json.
    """

    src: Positional[Path]
    """Folder, searched recursively; list of files (.csv, .txt); or index of 'adaptok data index'."""
    out: Path
    """Folder to write: new, empty, or with the same dataset begun."""
    root: Path | None = None
    """Where relative paths of a list start; the folder of the list if not given."""
    stride: int | None = None
    """Frames between the starts of clips; the length of a clip if not given. 1 takes every start frame."""
    limit: int | None = None
    """Most clips of a video, its first ones."""
    condition_frames: int = 0
    """Keep the ids of so many first frames as a condition, for frame prediction."""
    labels: bool = True
    """Keep the classes that the folders or the list say."""
    scores: bool = True
    """Keep predicted distortions."""
    shard_clips: int = 1024
    """Clips of a shard; videos are not divided."""
    workers: int = 1
    """Processes, each with a model and one decoding thread."""
    engine: Engine = "local"
    """local: on this machine; ray: on a Ray cluster, or with Ray on this machine."""

    def run(self) -> None:
        codec = self.load()
        options = self._options(codec)
        model = codec if self.workers == 1 and self.engine == "local" else self.model
        del codec  # several processes have their own
        with ExitStack() as opening, ExitStack() as tokenizing:

            def begun(_: TokenPlan, clips: int) -> Callable[[int], None]:
                opening.close()
                return tokenizing.enter_context(progress("tokenizing", clips, "clips", self.quiet))

            done = tokenize(
                self.src,
                self.out,
                model,
                options,
                root=self.root,
                device=self.device,
                dtype=self.dtype,
                workers=self.workers,
                engine=self.engine,
                on_open=opening.enter_context(progress("opening", None, "files", self.quiet)),
                on_start=begun,
            )
        self._report(done)

    def _options(self, codec: AdapTok) -> TokenOptions:
        budget = None
        if self.budget is not None:
            [budget] = parse_one(self.budget)
        elif self.target is None:
            budget = codec.max_budget / 2
        return TokenOptions.parse(
            {
                "budget": budget,
                "target": self.target,
                "scope": self.scope,
                "uniform": self.uniform,
                "fit": self.fit,
                "fps": self.fps,
                "stride": self.stride,
                "limit": self.limit,
                "condition_frames": self.condition_frames,
                "labels": self.labels,
                "scores": self.scores,
                "shard_clips": self.shard_clips,
                "batch_size": self.batch_size,
            },
            "adaptok tokenize",
        )

    def _report(self, done: TokenizationResult) -> None:
        if done.unplanned:
            warn(
                f"{len(done.unplanned)} files came after the dataset was begun and are not in it, such as"
                f" {done.unplanned[0]}; tokenize them into another folder"
            )
        document = {
            "out": str(done.out),
            "clips": done.clips,
            "tokens": done.tokens,
            "shards": done.shards,
            "written": done.written,
            "broken": done.broken,
            "unplanned": done.unplanned,
        }
        lines = [f"{done.out}: {done.clips} clips, {done.tokens} tokens, {done.shards} shards, {done.written} written"]
        if done.broken:
            lines[0] += f"; {len(done.broken)} files cannot be read, or only in part:"
            lines += [f"  {path}: {why}" for path, why in done.broken.items()]
        self.result(document, "\n".join(lines))

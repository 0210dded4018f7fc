"""`adaptok data index DIR`, `adaptok data resize SRC DST` and `adaptok data shapes DIR`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from adaptok.cli.common import output_path, progress
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries, write_index
from adaptok.data.resizing import resize_collection
from adaptok.data.statistics import collect_statistics
from adaptok.data.synthetic.shapes import write_shapes


@dataclass(kw_only=True)
class Index:
    """Write a Parquet index of the videos and photographs in a folder: frames, rate, size, label, readable.

    Training takes it in the place of the folder, and then starts without opening every file.
    """

    src: Positional[Path]
    """Folder, searched recursively; or a list of files (.csv, .txt)."""
    out: Path | None = None
    """File to write; SRC/index.parquet if not given."""
    thorough: bool = False
    """Decode every frame: exact counts, and files that are damaged anywhere are found."""
    json: bool = False
    """Print one JSON object on stdout."""
    force: bool = False
    """Overwrite an index that is there."""
    quiet: bool = False
    """No progress bar, and no messages but errors."""

    def run(self) -> None:
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise ImportError("an index needs pyarrow; install it with: pip install 'adaptok[train]'") from None
        folder = self.src if self.src.is_dir() else self.src.parent
        out = output_path(self.out or folder / "index.parquet", self.force, [self.src])
        entries = list(find_entries(self.src, VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        if not entries:
            raise ValueError(f"{self.src}: no video and no photograph in it")
        with progress("indexing", len(entries), "files", self.quiet) as advance:
            entries = collect_statistics(entries, advance, self.thorough)
        write_index(out, entries)
        broken = {str(entry.path): entry.error for entry in entries if entry.error is not None}
        if self.json:
            print(json.dumps({"out": str(out), "files": len(entries), "broken": broken}))
        elif not self.quiet:
            _tell(f"{out}: {len(entries)} files", broken)


@dataclass(kw_only=True)
class Resize:
    """Write a small copy of a collection: every video and photograph under its name, its short side at most SIZE.

    Started again, it goes on where it was stopped. Files that cannot be read are listed in DST/broken.json.
    """

    src: Positional[Path]
    """Folder, searched recursively."""
    dst: Positional[Path]
    """Folder to write."""
    size: int = 128
    """Pixels of the short side; smaller ones are left as they are."""
    crf: int = 16
    """Quality of the H.264: 0 is lossless, 18 looks so, 23 is small."""
    workers: int | None = None
    """Files at once; the number of processors if not given."""
    json: bool = False
    """Print one JSON object on stdout."""
    quiet: bool = False
    """No progress bar, and no messages but errors."""

    def run(self) -> None:
        if not self.src.is_dir():
            raise ValueError(f"{self.src}: expected a folder of videos")
        if not 0 <= self.crf <= 51 or (self.workers is not None and self.workers < 1):
            raise ValueError(f"--crf {self.crf} --workers {self.workers}, expected 0 to 51, and 1 or more")
        self.dst.mkdir(parents=True, exist_ok=True)
        with progress("resizing", None, "files", self.quiet) as advance:
            done = resize_collection(
                self.src, self.dst, self.size, crf=self.crf, workers=self.workers, progress=advance
            )
        if self.json:
            counts = {"out": str(self.dst), "written": done.written, "kept": done.kept, "broken": done.broken}
            print(json.dumps(counts))
        elif not self.quiet:
            _tell(f"{self.dst}: {done.written} files written, {done.kept} were there", done.broken)


@dataclass(kw_only=True)
class Shapes:
    """Draw a collection of videos: shapes that move in one of four ways, a folder for each, to try a generator on.

    Started again, it goes on where it was stopped.
    """

    dst: Positional[Path]
    """Folder to write."""
    clips: int = 400
    """Videos, of all classes in turn."""
    size: int = 128
    """Pixels of a side."""
    frames: int = 16
    """Of each video."""
    seed: int = 0
    """Of everything random; another one draws other videos."""
    crf: int = 8
    """Quality of the H.264: 0 is lossless, 18 looks so, 23 is small."""
    json: bool = False
    """Print one JSON object on stdout."""
    quiet: bool = False
    """No progress bar, and no messages but errors."""

    def run(self) -> None:
        with progress("drawing", self.clips, "clips", self.quiet) as advance:
            counts = write_shapes(
                self.dst,
                self.clips,
                frames=self.frames,
                size=self.size,
                seed=self.seed,
                crf=self.crf,
                progress=advance,
            )
        if self.json:
            print(json.dumps({"out": str(self.dst), "classes": counts}))
        elif not self.quiet:
            print(f"{self.dst}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def _tell(text: str, broken: dict[str, str] | dict[str, str | None]) -> None:
    print(text + (f", {len(broken)} cannot be read:" if broken else ""))
    for path, why in broken.items():
        print(f"  {path}: {why}")


@dataclass(kw_only=True)
class Data:
    """Prepare collections of videos for training: index them, make small copies, or draw some."""

    what: (
        Annotated[Index, tyro.conf.subcommand("index", prefix_name=False)]
        | Annotated[Resize, tyro.conf.subcommand("resize", prefix_name=False)]
        | Annotated[Shapes, tyro.conf.subcommand("shapes", prefix_name=False)]
    )

    def run(self) -> None:
        self.what.run()

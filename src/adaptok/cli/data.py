"""`adaptok data index`, `adaptok data resize` and `adaptok data synthesize`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, subcommand

from adaptok.cli.options import InputLimits, Messages, Switch, group, option
from adaptok.cli.output import list_broken, one_output, output_folder, output_path, progress, show


@dataclass(kw_only=True)
class Index:
    """Write a Parquet index of the videos and photographs in a collection."""

    notes: ClassVar[str] = (
        "The index lists frames, frame rate, size, label and readability of each file. Training takes it in place "
        "of the folder, and then starts without opening every file."
    )

    src: Annotated[Positional[Path], option("COLLECTION")]
    """Folder, searched recursively, or list of files (.csv, .txt)."""
    output: Annotated[Path | None, option("INDEX", "-o")] = None
    """Index to write (.parquet). The default is index.parquet in the folder of the collection."""
    thorough: Switch = False
    """Decode every frame. Slower, but counts frames exactly and detects files that are damaged anywhere."""
    force: Switch = False
    """Overwrite an existing index."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.data.manifests import (
            IMAGE_SUFFIXES,
            VIDEO_SUFFIXES,
            find_entries,
            no_readable_message,
            write_index,
        )
        from adaptok.data.statistics import collect_statistics
        from adaptok.utils.extras import require

        require("pyarrow", extra="train", purpose="an index")
        folder = self.src if self.src.is_dir() else self.src.parent
        out = output_path(self.output or folder / "index.parquet", self.force, [self.src], (".parquet",))
        entries = list(find_entries(self.src, VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        if not entries:
            raise ValueError(f"{self.src}: contains no video and no photograph")
        with progress(self.messages, "indexing", len(entries), "files") as advance:
            entries = collect_statistics(entries, advance, self.thorough)
        broken = {str(entry.path): entry.error for entry in entries if entry.error is not None}
        if len(broken) == len(entries):
            raise ValueError(no_readable_message("video or photograph", self.src, broken))
        write_index(out, entries)
        document = {"out": str(out), "files": len(entries), "broken": broken}
        show(self.messages, document, _with_broken(f"{out}: {len(entries)} files", broken))


@dataclass(kw_only=True)
class Resize:
    """Write a small copy of a collection that decodes quickly."""

    notes: ClassVar[str] = (
        "Every video and photograph keeps its name, and its short side shrinks to at most --size pixels. An "
        "interrupted run resumes when it is started again. Files that cannot be read are listed in broken.json."
    )

    src: Annotated[Positional[Path], option("SRC")]
    """Folder, searched recursively."""
    dst: Annotated[Positional[Path | None], option("[DST]")] = None
    """Folder to write. The default is the name of SRC followed by the size, in the current folder."""
    output: Annotated[Path | None, option("DST", "-o")] = None
    """The same as the argument DST."""
    size: int = 128
    """Length of the short side in pixels; the default is the size of the bundled model's input. Smaller files keep
    their size."""
    crf: int = 16
    """Constant rate factor of the H.264 encoder, 0 to 51. 0 is lossless; the default, 16, is visually lossless; 23
    gives small files."""
    workers: Annotated[int | None, option("N")] = None
    """Number of files processed at once. The default is the number of processors."""
    maxima: Annotated[InputLimits, group("limit")] = field(default_factory=InputLimits)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.data.resizing import resize_collection

        if not self.src.is_dir():
            raise ValueError(f"{self.src}: expected a folder of videos")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"--crf {self.crf}, expected 0 to 51")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}, expected 1 or more")
        out = one_output(self.dst, self.output, Path(f"{self.src.resolve().name}-{self.size}"))
        assert out is not None
        output_folder(out)
        with progress(self.messages, "resizing", None, "files") as advance:
            done = resize_collection(
                self.src,
                out,
                self.size,
                crf=self.crf,
                workers=self.workers,
                limits=self.maxima.limits,
                progress=advance,
            )
        document = {"out": str(out), "written": done.written, "kept": done.kept, "broken": done.broken}
        text = f"{out}: {done.written} files written, {done.kept} existed already"
        show(self.messages, document, _with_broken(text, done.broken))


@dataclass(kw_only=True)
class Synthesize:
    """Draw a collection of videos of moving shapes, to try a generator on."""

    notes: ClassVar[str] = (
        "There is one folder for each of four motions. An interrupted run resumes when it is started again."
    )

    dst: Annotated[Positional[Path | None], option("[DST]")] = None
    """Folder to write. The default is shapes, in the current folder."""
    output: Annotated[Path | None, option("DST", "-o")] = None
    """The same as the argument DST."""
    clips: int = 400
    """Number of videos, divided evenly among the classes."""
    size: int = 128
    """Side of the frames in pixels; the default is the size of the bundled model's input."""
    frames: int = 16
    """Frames per video; the default is the length of a clip of the bundled model."""
    seed: int = 0
    """Seed of the random numbers. Another seed draws other videos."""
    crf: int = 8
    """Constant rate factor of the H.264 encoder, 0 to 51. 0 is lossless; the default, 8, keeps the sharp edges of the
    shapes."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.data.synthetic.shapes import write_shapes

        out = one_output(self.dst, self.output, Path("shapes"))
        assert out is not None
        output_folder(out)
        with progress(self.messages, "drawing", self.clips, "clips") as advance:
            counts = write_shapes(
                out,
                self.clips,
                frames=self.frames,
                size=self.size,
                seed=self.seed,
                crf=self.crf,
                progress=advance,
            )
        text = ", ".join(f"{count} {name}" for name, count in counts.items())
        show(self.messages, {"out": str(out), "classes": counts}, f"{out}: {text}")


def _with_broken(text: str, broken: dict[str, str] | dict[str, str | None]) -> str:
    """A result, followed by the files that cannot be read."""
    return f"{text}, {len(broken)} cannot be read:{list_broken(broken)}" if broken else text


@dataclass(kw_only=True)
class Data:
    """Prepare collections of videos for training: index, resize or synthesize them."""

    command: (
        Annotated[Index, subcommand("index")]
        | Annotated[Resize, subcommand("resize")]
        | Annotated[Synthesize, subcommand("synthesize")]
    )

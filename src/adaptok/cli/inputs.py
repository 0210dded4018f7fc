"""Videos that commands read: files, folders of frames, URLs and standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

from adaptok.cli.errors import UsageError
from adaptok.cli.options import Excerpt, InputLimits, Messages, Switch, option
from adaptok.cli.output import download_progress, input_path, say
from adaptok.config.choices import RawFormat

if TYPE_CHECKING:
    from adaptok.video.sources import FrameSource

STANDARD_INPUT = "-"


@dataclass(kw_only=True)
class Inputs:
    """Where the video may come from."""

    allow_url: Switch = False
    """Allow VIDEO to be a URL that begins with http:// or https://. It is downloaded into a temporary folder first.
    Without this flag, URLs are refused."""


@dataclass(kw_only=True)
class StreamInputs(Inputs):
    """Where the video may come from, and the form of standard input."""

    stream: Switch = False
    """Encode block by block as frames arrive, at lengths that do not depend on later frames, as --scope stream does.
    Needed to read standard input, where VIDEO is a hyphen."""
    input_format: RawFormat = "y4m"
    """Format of standard input: y4m, whose header states size, rate and pixel format; or rgb24, frames of 3 bytes per
    pixel, row by row, with the size --input-size and the rate --fps (30 by default)."""
    input_size: Annotated[str | None, option("WxH")] = None
    """Width and height of the frames of the format rgb24 in pixels, such as 640x360."""

    def size(self) -> tuple[int, int] | None:
        """Width and height of rgb24; None for y4m. Raise a UsageError if they are missing or not understood."""
        if self.input_format == "y4m":
            if self.input_size is not None:
                raise UsageError(f"--input-size {self.input_size} with y4m, whose header states the size; leave it out")
            return None
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", (self.input_size or "").lower())
        if match is None:
            raise UsageError(
                f"--input-size {self.input_size or 'is missing'}, expected width and height of the {self.input_format}"
                " frames, such as 640x360"
            )
        return int(match[1]), int(match[2])

    def check_standard_input(self) -> None:
        """Raise a UsageError unless the flags describe a stream, and something is piped in."""
        self.size()
        if not self.stream:
            raise UsageError("-: standard input is encoded as a stream; add --stream")
        if sys.stdin.isatty():
            raise UsageError(
                "-: standard input is a terminal; pipe a video into it, such as: ffmpeg -i VIDEO -f yuv4mpegpipe -"
                " | adaptok encode - TOKENS --stream"
            )


@dataclass(frozen=True)
class VideoInput:
    """A video, or a folder of videos, that has been checked but not read.

    Attributes:
        name: Name for outputs, without a suffix.
        path: Path of a file or folder; None for a URL.
        url: Address; None for a path.
        is_collection: Whether it is a folder that holds several videos rather than the frames of one.
    """

    name: str
    path: Path | None = None
    url: str | None = None
    is_collection: bool = False

    @classmethod
    def check(cls, video: str, inputs: Inputs) -> VideoInput:
        """Check an argument before a model is loaded.

        Raises:
            ValueError: It is a URL that is not allowed, or a folder that holds images in several ways.
            FileNotFoundError: It does not exist.
        """
        from adaptok.video.container import is_url
        from adaptok.video.folders import is_frame_folder
        from adaptok.video.remote import check_url

        if is_url(video):
            check_url(video, inputs.allow_url)
            return cls(PurePosixPath(unquote(urlsplit(video).path)).stem or "video", url=video)
        path = Path(video)
        if path.is_dir():
            return cls(path.resolve().name, path, is_collection=not is_frame_folder(path))
        return cls(path.stem, input_path(path))

    @property
    def paths(self) -> list[Path]:
        """Paths that outputs must not replace."""
        return [] if self.path is None else [self.path]

    @contextmanager
    def open(self, messages: Messages, fps: float | None) -> Iterator[Path]:
        """Yield the path to read: that of a URL is a temporary copy, whose download is shown as a progress bar.

        Args:
            messages: Whether to say what is done.
            fps: Frames per second that were asked for.
        """
        if self.path is not None:
            if self.path.is_dir():
                note_images(messages, self.path, fps)
            yield self.path
            return
        from adaptok.video.remote import downloaded

        assert self.url is not None
        with ExitStack() as bar:
            show_progress = bar.enter_context(download_progress(messages, "downloading"))
            with downloaded(self.url, show_progress) as path:
                bar.close()
                yield path


def note_images(messages: Messages, folder: Path, fps: float | None) -> None:
    """Say what the images of a folder, if there are any, are taken for.

    Args:
        messages: Whether to say it.
        folder: A folder of frames, or of videos.
        fps: Frames per second that were asked for.
    """
    from adaptok.video.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES, list_files
    from adaptok.video.sources import DEFAULT_FPS

    images = list_files(folder, IMAGE_SUFFIXES)
    if images and list_files(folder, VIDEO_SUFFIXES):
        say(messages, f"note: {folder}: {len(images)} images are ignored, as there are video files")
    elif images:
        videos = len({path.parent for path in images})
        advice = "" if fps else " (--fps sets another rate)"
        say(
            messages,
            f"note: {folder}: {len(images)} images, read as the frames of {videos} video{'s' if videos > 1 else ''} at"
            f" {fps or float(DEFAULT_FPS):g} per second{advice}",
        )


def open_standard_input(inputs: StreamInputs, frames: Excerpt, maxima: InputLimits) -> FrameSource:
    """Open the uncompressed video on standard input.

    Raises:
        VideoError: It has no whole frame, or another format.
    """
    from adaptok.video.sources import open_stream

    return open_stream(
        sys.stdin.buffer,
        inputs.input_format,
        size=inputs.size(),
        start=frames.start,
        stop=frames.stop,
        fps=frames.fps,
        limits=maxima.limits,
    )

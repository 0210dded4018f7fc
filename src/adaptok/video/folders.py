"""Folders of videos, and folders that hold the frames of one video."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif"}
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def list_frames(folder: Path) -> list[Path]:
    """List the images that lie directly in a folder, in natural order: frame2.png precedes frame10.png."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and _is_visible_file(path)]
    return sorted(images, key=lambda path: (_natural(path.name), path.name))


def list_videos(folder: Path) -> list[Path]:
    """List the videos of a folder and its sub-folders.

    If there are no video files, each folder that holds images directly is a video, and its images are the frames.
    Images beside video files are ignored.

    Raises:
        ValueError: There is neither a video nor an image.
    """
    videos = list_files(folder, VIDEO_SUFFIXES)
    videos = videos or sorted({path.parent for path in list_files(folder, IMAGE_SUFFIXES)})
    if not videos:
        raise ValueError(
            f"{folder}: neither videos ({_join(VIDEO_SUFFIXES)}) nor frames ({_join(IMAGE_SUFFIXES)}) in this folder,"
            " expected some"
        )
    return videos


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files of a folder and its sub-folders with one of these suffixes, sorted, without hidden ones and those
    in hidden sub-folders."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and _is_visible_file(path))
    return sorted(path for path in paths if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def is_frame_folder(folder: Path) -> bool:
    """Return whether a folder holds the frames of one video: images directly in it, and no video files at any depth.

    Raises:
        ValueError: It holds images, and so do its sub-folders.
    """
    frames = list_frames(folder)
    if not frames or list_files(folder, VIDEO_SUFFIXES):
        return False
    nested = [path for path in list_files(folder, IMAGE_SUFFIXES) if path.parent != folder]
    if nested:
        raise ValueError(
            f"{folder}: images such as {frames[0].name} and sub-folders with images such as"
            f" {nested[0].relative_to(folder).as_posix()}, expected the frames of one video, or one sub-folder of"
            " frames for each video; move the images"
        )
    return True


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that orders the digits in names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _join(suffixes: Collection[str]) -> str:
    return ", ".join(sorted(suffixes))

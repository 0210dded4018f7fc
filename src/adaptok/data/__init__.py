"""Training clips from videos and photographs."""

from adaptok.data.clips import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ClipMixture,
    ClipShape,
    ClipSource,
    FrameCache,
    ImageFolder,
    VideoFolder,
    find_files,
    fixed_clips,
)
from adaptok.data.manifests import Entry, read_manifest

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ClipMixture",
    "ClipShape",
    "ClipSource",
    "Entry",
    "FrameCache",
    "ImageFolder",
    "VideoFolder",
    "find_files",
    "fixed_clips",
    "read_manifest",
]

"""Training clips from videos, photographs and drawings."""

from adaptok.data.clips import ClipMixture, ClipSource, fixed_clips
from adaptok.data.decoding import FrameCache
from adaptok.data.images import ImageFolder
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Entry, find_entries, read_manifest, write_index
from adaptok.data.resizing import resize_collection
from adaptok.data.statistics import survey
from adaptok.data.synthetic.drawings import Drawings
from adaptok.data.videos import ClipShape, VideoFolder

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ClipMixture",
    "ClipShape",
    "ClipSource",
    "Drawings",
    "Entry",
    "FrameCache",
    "ImageFolder",
    "VideoFolder",
    "find_entries",
    "fixed_clips",
    "read_manifest",
    "resize_collection",
    "survey",
    "write_index",
]

"""Conversion of FFmpeg's frames to another size or pixel format, also in forked processes.

From PyAV 19 on, the frames of a thread share one converter, whose threads a forked process lacks: conversion would wait
for them forever. The converters here belong to a thread of one process. Earlier versions have one for each frame, as a
converter remembers the color space of the frame before.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

_SHARED = int(av.__version__.split(".")[0]) >= 19


class _Converters(threading.local):
    """Converters of one thread, by process."""

    def __init__(self) -> None:
        self.by_process: dict[int, VideoReformatter] = {}  # those of a parent stay, as freeing them would wait too

    def get(self) -> VideoReformatter:
        process = os.getpid()
        if process not in self.by_process:
            self.by_process[process] = VideoReformatter()
        return self.by_process[process]


_converters = _Converters()


def reformat(frame: VideoFrame, **options: Any) -> VideoFrame:
    """Convert a frame.

    Args:
        options: arguments of PyAV's `VideoReformatter.reformat`, such as `width`, `height` and `format`.
    """
    converter = _converters.get() if _SHARED else VideoReformatter()
    return converter.reformat(frame, **options)


def to_rgb(frame: VideoFrame, **options: Any) -> NDArray[np.uint8]:
    """Convert a frame to RGB `[H, W, 3]`; see `reformat` for the options."""
    return np.asarray(reformat(frame, format="rgb24", **options).to_ndarray(), np.uint8)

"""Properties of the tokens of a video, with bounds that keep a hostile token file from taking time or memory."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated

from pydantic import AliasChoices, Field, model_validator

from adaptok.config.base import Config
from adaptok.config.choices import FrameFit
from adaptok.video.container import MAX_FPS
from adaptok.video.geometry import Geometry
from adaptok.video.limits import Limits
from adaptok.video.windows import Windows, check_window_overlap

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A number of frames, blocks or pixels. The bound keeps products of two of them within the range of floats."""
_RATE = re.compile(r"[0-9]{1,10}(/[0-9]{1,10}|\.[0-9]{1,10})?")  # longer numbers would take Fraction long to read
_MAX_TILES = 65535


class AudioSource(Config):
    """Where the sound of a video is, which a token file does not contain."""

    path: str
    """Path of a file with sound, relative to the folder of the token file where possible."""
    start: float = Field(default=0.0, ge=0)
    """Time in that file at which the video begins, in seconds from its first frame."""


class TokenInfo(Config):
    """Properties of the model and the video that tokens come from."""

    model: str
    """Name of the model."""
    model_hash: str
    """SHA-256 of the tokenizer's weights."""
    codebook_size: int = Field(ge=2, le=65536)
    """Number of different ids."""
    latents: int = Field(ge=1, le=65535)
    """K, largest length of a block."""
    length_step: Count = Field(validation_alias=AliasChoices("length_step", "step"), serialization_alias="step")
    """Distance between candidate lengths. Column j of the scores is for `(j + 1) * length_step` tokens."""
    block_frames: Count
    """Frames per block."""
    clip_blocks: Count
    """G, blocks per clip. Attention spans one clip."""
    frames: Count
    """Frames of the video. The last block repeats the last frame `padding` times."""
    rate: str
    """Frames per second, as a fraction `numerator/denominator`, at most 1000."""
    width: Count
    """Width of the video's frames, in pixels."""
    height: Count
    """Height of the video's frames, in pixels."""
    fit: FrameFit
    """How frames are fitted to the square of the model, or to tiles of that size."""
    size: Count
    """S, side of the square of the model, in pixels."""
    short_side: Count | None = None
    """Shorter side of the canvas that the tiles cover, in pixels; None without tiles."""
    tile_overlap: int | None = Field(default=None, ge=0)
    """Smallest overlap of neighbouring tiles, in pixels; None without tiles."""
    window_overlap: int = Field(default=0, ge=0)
    """Number of frames that neighbouring clips share. They are cross-faded."""
    audio: AudioSource | None = None
    """Where the sound of the video is; None if it has none, or it was dropped."""

    @property
    def fps(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.rate)

    @property
    def windows(self) -> Windows:
        """How the clips of one tile follow each other."""
        return Windows(self.frames, self.clip_blocks * self.block_frames, self.window_overlap)

    @property
    def tiles(self) -> int:
        """Number of squares that cover a frame; 1 without tiles."""
        return self.geometry.tiles

    @property
    def tile_blocks(self) -> int:
        """Number of blocks of each tile."""
        windows = self.windows
        return (windows.count - 1) * self.clip_blocks + math.ceil(windows.last / self.block_frames)

    @property
    def blocks(self) -> int:
        """Number of blocks of all tiles."""
        return self.tile_blocks * self.tiles

    @property
    def clips(self) -> int:
        """Number of clips of all tiles. The last one of a tile may have fewer blocks."""
        return self.windows.count * self.tiles

    @property
    def padding(self) -> int:
        """Number of repeated frames at the end of the last block."""
        return -self.windows.last % self.block_frames

    def block_of(self, frame: int) -> int:
        """Return the index of the latest block of a tile that shows a frame, 0 to `tile_blocks` - 1."""
        clip, place = self.windows.at(frame)
        return clip * self.clip_blocks + place // self.block_frames

    @property
    def seconds(self) -> float:
        """Duration of the video."""
        return float(self.frames / self.fps)

    @property
    def geometry(self) -> Geometry:
        """How frames are fitted to the square of the model."""
        return Geometry(self.fit, self.width, self.height, self.size, self.short_side, self.tile_overlap)

    @property
    def crop(self) -> tuple[int, int, int, int]:
        """Top, left, height and width, in pixels, of the region of a frame that the model saw."""
        return self.geometry.region

    def check_limits(self, limits: Limits, original: bool = True) -> None:
        """Check that the video may be decoded, in its original size or at the scale of the model.

        Raises:
            VideoError: Its frames are too large, or it is too long.
        """
        if original:
            limits.check_size("the tokens", self.width, self.height, "decode at the scale of the model with --square")
        height, width = self.geometry.canvas
        limits.check_size("the tokens", width, height, "encode the video again with a smaller --short-side")
        limits.check_duration("the tokens", self.seconds, "encode the video in parts")

    @model_validator(mode="after")
    def _check(self) -> TokenInfo:
        if not _is_rate(self.rate):
            shown = self.rate if len(self.rate) < 40 else f"{self.rate[:40]}…"
            raise ValueError(f"rate {shown!r}, expected a positive fraction of at most {MAX_FPS} such as '30/1'")
        check_window_overlap(self.window_overlap, self.clip_blocks * self.block_frames)
        if self.fit == "tile" and None in (self.short_side, self.tile_overlap):
            raise ValueError("the fit 'tile' without short_side and tile_overlap, expected both")
        if self.geometry.tiles > _MAX_TILES:
            raise ValueError(f"{self.geometry.tiles} tiles, expected at most {_MAX_TILES}; choose a smaller short side")
        return self


def _is_rate(text: str) -> bool:
    """Return whether a text is a fraction above 0 and at most `MAX_FPS`."""
    try:
        return _RATE.fullmatch(text) is not None and 0 < Fraction(text) <= MAX_FPS
    except ZeroDivisionError:
        return False

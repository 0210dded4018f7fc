"""Tokens of a video, and the token file that stores them.

A token file (`.adaptok`) is a safetensors file with these tensors:

| name | type and shape | content |
| --- | --- | --- |
| `ids` | uint16 `[tokens]` | kept ids of all blocks, in order of time, and within a block of time in order of tiles |
| `lengths` | uint16 `[blocks]` | number of ids that each block keeps |
| `scores` | float32 `[blocks, L]`, optional | predicted distortion of each block at each candidate length |

Its metadata has one entry, `adaptok`, a JSON object with

- `version`: version of the format: 2 if the file has one of the fields in `VERSION_2_FIELDS`, which are left out at
  their defaults, otherwise 1. Readers refuse versions they do not know.
- `checksum`: SHA-256 of the whole file, in which the 64 digits of the checksum itself are replaced by zeros.
- the fields of `TokenInfo`, where `length_step` is named `step`.
- `padding` and `crop`: properties of `TokenInfo`, for other readers; this program derives them.

The same tokens always give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AliasChoices, Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from adaptok.allocation.knapsack import allocate
from adaptok.allocation.policy import ClipLayout, Lengths, check_budget
from adaptok.config.base import Config
from adaptok.config.choices import FrameFit
from adaptok.utils.files import replacing
from adaptok.video.geometry import Geometry
from adaptok.video.windows import Windows, check_window_overlap

VERSION_2_FIELDS = frozenset({"short_side", "tile_overlap", "window_overlap", "audio"})
"""Fields that version 2 of the format added."""
KEY = "adaptok"
"""Name of the metadata entry."""
_BLANK = "0" * 64
_HEADER_LENGTH = 8
_MAX_TILES = 65535


class TokenFileError(ValueError):
    """A token file cannot be read. The message is one line."""


class TokenMismatchError(ValueError):
    """Tokens were written by another model than the one that should decode them. The message is one line."""


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
    length_step: int = Field(ge=1, validation_alias=AliasChoices("length_step", "step"), serialization_alias="step")
    """Distance between candidate lengths. Column j of the scores is for `(j + 1) * length_step` tokens."""
    block_frames: int = Field(ge=1)
    """Frames per block."""
    clip_blocks: int = Field(ge=1)
    """G, blocks per clip. Attention spans one clip."""
    frames: int = Field(ge=1)
    """Frames of the video. The last block repeats the last frame `padding` times."""
    rate: str
    """Frames per second, as a fraction `numerator/denominator`."""
    width: int = Field(ge=1)
    """Width of the video's frames, in pixels."""
    height: int = Field(ge=1)
    """Height of the video's frames, in pixels."""
    fit: FrameFit
    """How frames are fitted to the square of the model, or to tiles of that size."""
    size: int = Field(ge=1)
    """S, side of the square of the model, in pixels."""
    short_side: int | None = None
    """Shorter side of the canvas that the tiles cover, in pixels; None without tiles."""
    tile_overlap: int | None = None
    """Smallest overlap of neighbouring tiles, in pixels; None without tiles."""
    window_overlap: int = 0
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

    @model_validator(mode="after")
    def _check(self) -> TokenInfo:
        try:
            positive = Fraction(self.rate) > 0
        except (ValueError, ZeroDivisionError):
            positive = False
        if not positive:
            raise ValueError(f"rate {self.rate!r}, expected a positive fraction such as '30/1'")
        check_window_overlap(self.window_overlap, self.clip_blocks * self.block_frames)
        if self.fit == "tile" and None in (self.short_side, self.tile_overlap):
            raise ValueError("the fit 'tile' without short_side and tile_overlap, expected both")
        if self.geometry.tiles > _MAX_TILES:
            raise ValueError(f"{self.geometry.tiles} tiles, expected at most {_MAX_TILES}; choose a smaller short side")
        return self


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """Tokens of one video.

    Attributes:
        ids: uint16 `[tokens]`, kept ids of all blocks, in order of time, and within a block of time in order of tiles.
        lengths: int64 `[blocks]`, number of ids that each block keeps, 0..K, in the same order.
        info: Properties of the model and the video.
        scores: float32 `[blocks, L]`, predicted distortion of each block at each candidate length; None if not kept.
        warning: Description of damage to the video, if any. It is not stored in token files.

    Raises:
        ValueError: The attributes contradict each other.
    """

    ids: NDArray[np.uint16]
    lengths: Lengths
    info: TokenInfo
    scores: NDArray[np.float32] | None = None
    warning: str | None = None

    def __post_init__(self) -> None:
        info, lengths = self.info, np.asarray(self.lengths, dtype=np.int64)
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "ids", np.ascontiguousarray(self.ids, dtype=np.uint16))
        if lengths.shape != (info.blocks,):
            raise ValueError(f"lengths of shape {lengths.shape}, expected ({info.blocks},) for {info.frames} frames")
        if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= info.latents:
            raise ValueError(f"lengths {lengths.min()} to {lengths.max()}, expected 0 to {info.latents}")
        if self.ids.shape != (lengths.sum(),):
            raise ValueError(f"ids of shape {self.ids.shape}, expected ({lengths.sum()},), the sum of the lengths")
        if len(self.ids) and self.ids.max() >= info.codebook_size:
            raise ValueError(f"id {self.ids.max()}, expected less than the codebook's {info.codebook_size}")
        if self.scores is not None:
            expected = (info.blocks, info.latents // info.length_step)
            object.__setattr__(self, "scores", np.ascontiguousarray(self.scores, dtype=np.float32))
            if self.scores.shape != expected:
                raise ValueError(f"scores of shape {self.scores.shape}, expected {expected}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VideoTokens) and self.to_bytes() == other.to_bytes()

    def __len__(self) -> int:
        """Number of tokens, which may be 0."""
        return len(self.ids)

    def __repr__(self) -> str:
        info = self.info
        tiles = f" in {info.tiles} tiles" if info.tiles > 1 else ""
        return (
            f"VideoTokens({len(self)} tokens of {info.model!r}, {info.frames} frames of {info.width}x{info.height}"
            f"{tiles} at {float(info.fps):g} fps, {info.blocks} blocks of {self.lengths.min()} to"
            f" {self.lengths.max()} tokens{'' if self.scores is None else ', with scores'})"
        )

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def block_tokens(self) -> Lengths:
        """Number of tokens of each block of time, summed over all tiles, as int64 `[tile_blocks]`."""
        total: Lengths = self.lengths.reshape(-1, self.info.tiles).sum(1)
        return total

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of video."""
        return self.tokens / self.info.seconds

    @property
    def bits(self) -> int:
        """Size of the ids and lengths in bits, at log2(codebook size) bits per id and log2(K + 1) bits per length."""
        return math.ceil(
            self.tokens * math.log2(self.info.codebook_size) + len(self.lengths) * math.log2(self.info.latents + 1)
        )

    def block_ids(self, block: int) -> NDArray[np.uint16]:
        """Return the kept ids of one block, given its index in the video."""
        stop = int(self.lengths[: block + 1].sum())
        return self.ids[stop - int(self.lengths[block]) : stop]

    def padded(self, fill: int = 0) -> NDArray[np.int64]:
        """Return ids `[blocks, K]`, with `fill` in place of dropped tokens."""
        rows = np.full((len(self.lengths), self.info.latents), fill, dtype=np.int64)
        rows[np.arange(self.info.latents) < self.lengths[:, None]] = self.ids
        return rows

    def shorten(self, lengths: ArrayLike) -> VideoTokens:
        """Drop tokens at the ends of blocks.

        Args:
            lengths: New lengths `[blocks]`, each at most the present one.

        Raises:
            ValueError: A length is above the present one, or the number of lengths is wrong.
        """
        wanted = np.asarray(lengths, dtype=np.int64)
        if wanted.shape != self.lengths.shape or (wanted > self.lengths).any() or (wanted < 0).any():
            raise ValueError(
                f"lengths of shape {wanted.shape}, expected {self.lengths.shape}, each from 0 to the present length"
            )
        rows = self.padded()
        kept = np.arange(self.info.latents) < wanted[:, None]
        return replace(self, ids=rows[kept].astype(np.uint16), lengths=wanted)

    def truncate(self, budget: float) -> VideoTokens:
        """Drop tokens to meet a budget, at the lengths of the lowest predicted distortion. The model is not needed.

        Args:
            budget: Tokens per clip, averaged over the video. A clip of fewer blocks counts in proportion.

        Raises:
            ValueError: No scores were kept, or the budget is less than one `length_step` per block.
        """
        if self.scores is None:
            raise ValueError("truncation needs scores, which these tokens lack; encode the video again with scores")
        step, info = self.info.length_step, self.info
        total = check_budget(budget, info.blocks, ClipLayout(info.clip_blocks, info.latents, step))
        if self.tokens <= total:
            return self
        # candidates above the present length of a block count as that length
        levels = self.lengths // step
        fixed = levels == 0
        column = np.minimum(np.arange(info.latents // step), np.maximum(levels, 1)[:, None] - 1)
        scores = np.take_along_axis(self.scores, column, axis=1)[~fixed]
        wanted = self.lengths.copy()
        if len(scores):
            wanted[~fixed] = allocate(scores, total - int(self.lengths[fixed].sum()), length_step=step).lengths
        return self.shorten(np.minimum(wanted, self.lengths))

    def to_bytes(self) -> bytes:
        """Return the bytes of the token file."""
        tensors: dict[str, NDArray[Any]] = {"ids": self.ids, "lengths": self.lengths.astype(np.uint16)}
        if self.scores is not None:
            tensors["scores"] = self.scores
        fields = self.info.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        derived = {"padding": self.info.padding, "crop": self.info.crop}
        document = {"version": _version(fields), "checksum": _BLANK, **fields, **derived}
        blank = save_tensors(tensors, metadata={KEY: json.dumps(document, separators=(",", ":"))})
        return blank.replace(_BLANK.encode(), hashlib.sha256(blank).hexdigest().encode(), 1)

    def save(self, path: str | Path) -> None:
        """Write the token file. An existing file is replaced atomically."""
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> VideoTokens:
        """Read a token file.

        Raises:
            FileNotFoundError: The file does not exist.
            TokenFileError: The file is damaged, of another version of the format, or not a token file.
        """
        path = Path(path)
        if path.is_dir():
            raise TokenFileError(f"{path}: a folder, expected a token file")
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "token file") -> VideoTokens:
        """Read the bytes of a token file. `name` is its name in error messages. Errors as for `load`."""
        document = _read_document(data, name)
        version, checksum = document.pop("version", None), document.pop("checksum", None)
        if version != _version(document):
            raise TokenFileError(
                f"{name}: version {version!r} of the format, expected {_version(document)} with these fields; install a"
                " newer adaptok"
            )
        if not isinstance(checksum, str) or len(checksum) != len(_BLANK):
            raise TokenFileError(f"{name}: damaged (no checksum); encode the video again")
        blank = data.replace(checksum.encode(), _BLANK.encode(), 1)
        if hashlib.sha256(blank).hexdigest() != checksum:
            raise TokenFileError(f"{name}: damaged (its checksum does not match); encode the video again")
        fields = {key: value for key, value in document.items() if key not in ("padding", "crop")}
        try:
            tensors = load_tensors(data)
            return cls(tensors["ids"], tensors["lengths"], TokenInfo.parse(fields), tensors.get("scores"))
        except (SafetensorError, KeyError, ValueError) as error:
            raise TokenFileError(f"{name}: not a valid token file ({error})") from None


def _version(fields: Mapping[str, Any]) -> int:
    """Return the lowest version of the format that has these fields."""
    return 2 if VERSION_2_FIELDS & fields.keys() else 1


def _read_document(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in the metadata."""
    size = int.from_bytes(data[:_HEADER_LENGTH], "little")
    if len(data) < _HEADER_LENGTH or size > len(data) - _HEADER_LENGTH:
        raise TokenFileError(f"{name}: not a token file, or cut off; expected a file that 'adaptok encode' wrote")
    try:
        header = json.loads(data[_HEADER_LENGTH : _HEADER_LENGTH + size])
        document = json.loads(header["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"{name}: not a token file, or damaged; expected a file that 'adaptok encode' wrote"
        raise TokenFileError(message) from None
    if not isinstance(document, dict):
        raise TokenFileError(f"{name}: damaged (its metadata is not an object); encode the video again")
    return document

"""Tokens of a video: the kept ids of every block, and what is needed to decode them. Their file format.

A token file is one safetensors file. Tensors: `ids` (uint16 `[N]`, the kept ids of all blocks in order), `lengths`
(uint16 `[blocks]`) and, where they were kept, `scores` (float32 `[blocks, L]`). Its only metadata entry, `adaptok`, is
a JSON object: the fields of `TokenInfo`, its `padding` and `crop`, `version`, and `checksum`. That is the SHA-256 of
the whole file with its own 64 digits replaced by zeros, so that no byte can change unnoticed. The same tokens
always give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
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
from adaptok.config.choices import Fit
from adaptok.utils.files import replacing
from adaptok.video.geometry import Geometry

VERSION = 1
SUFFIX = ".adaptok"
KEY = "adaptok"
_BLANK = "0" * 64
_HEADER_LENGTH = 8
_LARGEST_HEADER = 1 << 20


class TokenFileError(ValueError):
    """A token file that cannot be read, told in one line."""


class TokenMismatchError(ValueError):
    """Tokens of another model than the one that should decode them, told in one line."""


class TokenInfo(Config):
    """Where tokens come from: the model, the cut into blocks, and the video."""

    model: str
    """Name of the model that wrote them."""
    model_hash: str
    """SHA-256 of its tokenizer's weights."""
    codebook_size: int = Field(ge=2, le=65536)
    latents: int = Field(ge=1, le=65535)
    """K, latents of a block at full length."""
    length_step: int = Field(ge=1, validation_alias=AliasChoices("length_step", "step"), serialization_alias="step")
    """Distance between candidate lengths. Column j of the scores is for `(j + 1) * length_step` tokens."""
    block_frames: int = Field(ge=1)
    """Frames of a block."""
    clip_blocks: int = Field(ge=1)
    """G, blocks of a whole clip; attention ends there."""
    frames: int = Field(ge=1)
    """Frames of the video; the last block repeats its last frame `padding` times."""
    rate: str
    """Frames per second, as `numerator/denominator`."""
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    """Size of the video's frames, in pixels."""
    fit: Fit
    """How they were brought to the model's square."""
    size: int = Field(ge=1)
    """S, side of that square."""

    @property
    def fps(self) -> Fraction:
        return Fraction(self.rate)

    @property
    def blocks(self) -> int:
        return math.ceil(self.frames / self.block_frames)

    @property
    def clips(self) -> int:
        """Clips, the last of which may have fewer blocks."""
        return math.ceil(self.blocks / self.clip_blocks)

    @property
    def padding(self) -> int:
        """Repeated frames at the end of the last block."""
        return self.blocks * self.block_frames - self.frames

    @property
    def seconds(self) -> float:
        return float(self.frames / self.fps)

    @property
    def geometry(self) -> Geometry:
        """How frames are fitted to the square of the model."""
        return Geometry(self.fit, self.width, self.height, self.size)

    @property
    def crop(self) -> tuple[int, int, int, int]:
        """Region of a frame that the model saw: top, left, height, width in pixels."""
        return self.geometry.region

    @model_validator(mode="after")
    def _check(self) -> TokenInfo:
        try:
            positive = Fraction(self.rate) > 0
        except (ValueError, ZeroDivisionError):
            positive = False
        if not positive:
            raise ValueError(f"rate {self.rate!r} is not a positive fraction such as '30/1'")
        return self


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """Tokens of one video.

    Attributes:
        ids: uint16 `[tokens]`, the kept ids of all blocks, in order.
        lengths: int64 `[blocks]`, how many each block keeps, 0..K.
        info: provenance.
        scores: float32 `[blocks, L]` or None: predicted distortion of each block at each candidate length.
        warning: what was wrong with the video, where something was; not stored.

    Raises:
        ValueError: the parts contradict each other.
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

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Of video."""
        return self.tokens / self.info.seconds

    @property
    def bits(self) -> int:
        """Information in the ids at a fixed number of bits each (log2 of the codebook), and in the lengths."""
        return math.ceil(
            self.tokens * math.log2(self.info.codebook_size) + len(self.lengths) * math.log2(self.info.latents + 1)
        )

    def block_ids(self, block: int) -> NDArray[np.uint16]:
        """Kept ids of one block, counted over the whole video."""
        stop = int(self.lengths[: block + 1].sum())
        return self.ids[stop - int(self.lengths[block]) : stop]

    def padded(self, fill: int = 0) -> NDArray[np.int64]:
        """Ids as `[blocks, K]`, `fill` where latents were dropped."""
        rows = np.full((len(self.lengths), self.info.latents), fill, dtype=np.int64)
        rows[np.arange(self.info.latents) < self.lengths[:, None]] = self.ids
        return rows

    def shorten(self, lengths: ArrayLike) -> VideoTokens:
        """The same tokens with shorter tails.

        Args:
            lengths: `[blocks]`, none above the present one.

        Raises:
            ValueError: a length would grow, or the number of lengths is another.
        """
        wanted = np.asarray(lengths, dtype=np.int64)
        if wanted.shape != self.lengths.shape or (wanted > self.lengths).any() or (wanted < 0).any():
            raise ValueError(f"lengths of shape {wanted.shape} cannot come from tails cut off {self.lengths.shape}")
        rows = self.padded()
        kept = np.arange(self.info.latents) < wanted[:, None]
        return replace(self, ids=rows[kept].astype(np.uint16), lengths=wanted)

    def truncate(self, budget: float) -> VideoTokens:
        """Shorten tails, without the model, to the best lengths within a budget.

        Args:
            budget: tokens per clip, on average over the video; a last clip of fewer blocks counts in proportion.

        Raises:
            ValueError: no scores were kept, or the budget is less than one step for every block.
        """
        if self.scores is None:
            raise ValueError("these tokens were saved without scores, which truncation needs; encode again with scores")
        step, info = self.info.length_step, self.info
        total = check_budget(budget, info.blocks, ClipLayout(info.clip_blocks, info.latents, step))
        if self.tokens <= total:
            return self
        # a candidate above a block's present length is that length: it costs no more, and is worth no more
        levels = self.lengths // step
        fixed = levels == 0
        column = np.minimum(np.arange(info.latents // step), np.maximum(levels, 1)[:, None] - 1)
        scores = np.take_along_axis(self.scores, column, axis=1)[~fixed]
        wanted = self.lengths.copy()
        if len(scores):
            wanted[~fixed] = allocate(scores, total - int(self.lengths[fixed].sum()), length_step=step).lengths
        return self.shorten(np.minimum(wanted, self.lengths))

    def to_bytes(self) -> bytes:
        """The token file."""
        tensors: dict[str, NDArray[Any]] = {"ids": self.ids, "lengths": self.lengths.astype(np.uint16)}
        if self.scores is not None:
            tensors["scores"] = self.scores
        derived = {"padding": self.info.padding, "crop": self.info.crop}
        document = {
            "version": VERSION,
            "checksum": _BLANK,
            **self.info.model_dump(mode="json", by_alias=True),
            **derived,
        }
        blank = save_tensors(tensors, metadata={KEY: json.dumps(document, separators=(",", ":"))})
        return blank.replace(_BLANK.encode(), hashlib.sha256(blank).hexdigest().encode(), 1)

    def save(self, path: str | Path) -> None:
        """Write the token file, beside its place first and then renamed."""
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> VideoTokens:
        """Read a token file.

        Raises:
            FileNotFoundError: there is none.
            TokenFileError: it is damaged, of another version, or no token file.
        """
        path = Path(path)
        if path.is_dir():
            raise TokenFileError(f"{path}: a directory, expected a token file")
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "token file") -> VideoTokens:
        """Inverse of `to_bytes`; `name` is for error messages."""
        document = _read_document(data, name)
        version, checksum = document.pop("version", None), document.pop("checksum", None)
        if version != VERSION:
            raise TokenFileError(f"{name}: version {version!r} of the format, this program reads {VERSION}")
        if not isinstance(checksum, str) or len(checksum) != len(_BLANK):
            raise TokenFileError(f"{name}: damaged (no checksum); encode the video again")
        blank = data.replace(checksum.encode(), _BLANK.encode(), 1)
        if hashlib.sha256(blank).hexdigest() != checksum:
            raise TokenFileError(f"{name}: damaged (its checksum does not match); encode the video again")
        for derived in ("padding", "crop"):  # for other readers; ours works them out
            document.pop(derived, None)
        try:
            tensors = load_tensors(data)
            return cls(tensors["ids"], tensors["lengths"], TokenInfo.parse(document), tensors.get("scores"))
        except (SafetensorError, KeyError, ValueError) as error:
            raise TokenFileError(f"{name}: not a valid token file ({error})") from None


def _read_document(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object in the metadata."""
    size = int.from_bytes(data[:_HEADER_LENGTH], "little")
    if len(data) < _HEADER_LENGTH or size > min(_LARGEST_HEADER, len(data) - _HEADER_LENGTH):
        raise TokenFileError(f"{name}: not a token file, or cut off; expected a file that 'adaptok encode' wrote")
    try:
        header = json.loads(data[_HEADER_LENGTH : _HEADER_LENGTH + size])
        document = json.loads(header["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TokenFileError(
            f"{name}: not a token file, or damaged; expected a file that 'adaptok encode' wrote"
        ) from None
    if not isinstance(document, dict):
        raise TokenFileError(f"{name}: damaged (its metadata is no object); encode the video again")
    return document

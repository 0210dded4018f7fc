"""Tokens of a video, and the token file that stores them.

A token file (`.adaptok`) is a safetensors file with these tensors:

| name | type and shape | content |
| --- | --- | --- |
| `ids` | uint16 `[tokens]` | kept ids of all blocks, in order of time, and within a block of time in order of tiles |
| `lengths` | uint16 `[blocks]` | number of ids that each block keeps |
| `scores` | float32 `[blocks, L]`, optional | scores of each block at each candidate length, whose sum is minimized |

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
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from adaptok.allocation.knapsack import allocate
from adaptok.allocation.policy import ClipLayout, Lengths, check_budget
from adaptok.codec.token_info import TokenInfo
from adaptok.utils.files import replacing
from adaptok.utils.messages import one_line

VERSION_2_FIELDS = frozenset({"short_side", "tile_overlap", "window_overlap", "audio"})
"""Fields that version 2 of the format added."""
KEY = "adaptok"
"""Name of the metadata entry."""
_BLANK = "0" * 64
_HEADER_LENGTH = 8
_MAX_HEADER = 2**20  # bytes; the header of a token file has about 1000
_TYPES = {"ids": np.dtype("<u2"), "lengths": np.dtype("<u2"), "scores": np.dtype("<f4")}


class TokenFileError(ValueError):
    """A token file cannot be read. The message is one line."""


class TokenMismatchError(ValueError):
    """Tokens were written by another model than the one that should decode them. The message is one line."""


@dataclass(frozen=True, eq=False)
class VideoTokens:
    """Tokens of one video.

    Attributes:
        ids: uint16 `[tokens]`, kept ids of all blocks, in order of time, and within a block of time in order of tiles.
        lengths: int64 `[blocks]`, number of ids that each block keeps, 0..K, in the same order.
        info: Properties of the model and the video.
        scores: float32 `[blocks, L]`, scores of each block at each candidate length, whose sum an allocation minimizes:
            predicted distortions, or those of `ClipCodec.allocation_scores`. None if not kept.
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
        info, ids, lengths = self.info, whole_numbers("ids", self.ids), whole_numbers("lengths", self.lengths)
        object.__setattr__(self, "lengths", lengths)
        if lengths.shape != (info.blocks,):
            raise ValueError(f"lengths of shape {lengths.shape}, expected ({info.blocks},) for {info.frames} frames")
        if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= info.latents:
            raise ValueError(f"lengths {lengths.min()} to {lengths.max()}, expected 0 to {info.latents}")
        if ids.shape != (lengths.sum(),):
            raise ValueError(f"ids of shape {ids.shape}, expected ({lengths.sum()},), the sum of the lengths")
        if len(ids) and not 0 <= ids.min() <= ids.max() < info.codebook_size:
            raise ValueError(f"ids {ids.min()} to {ids.max()}, expected 0 to {info.codebook_size - 1}, the codebook's")
        object.__setattr__(self, "ids", np.ascontiguousarray(ids, dtype=np.uint16))
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
        first = int(self._first[block])
        return self.ids[first : first + int(self.lengths[block])]

    @cached_property
    def _first(self) -> Lengths:
        """Place of each block's first id, as int64 `[blocks]`."""
        return np.cumsum(self.lengths) - self.lengths

    def padded(self, fill: int = 0, part: slice = slice(None)) -> NDArray[np.int64]:
        """Return ids `[blocks, K]` of all blocks or a part of them, with `fill` in place of dropped tokens."""
        lengths = self.lengths[part]
        rows = np.full((len(lengths), self.info.latents), fill, dtype=np.int64)
        if len(lengths):
            first = int(self._first[part][0])
            rows[np.arange(self.info.latents) < lengths[:, None]] = self.ids[first : first + int(lengths.sum())]
        return rows

    def shorten(self, lengths: ArrayLike) -> VideoTokens:
        """Drop tokens at the ends of blocks.

        Args:
            lengths: New lengths `[blocks]`, each at most the present one.

        Raises:
            ValueError: A length is above the present one, or the number of lengths is wrong.
        """
        wanted = whole_numbers("lengths", lengths)
        if wanted.shape != self.lengths.shape or (wanted > self.lengths).any() or (wanted < 0).any():
            raise ValueError(
                f"lengths of shape {wanted.shape}, expected {self.lengths.shape}, each from 0 to the present length"
            )
        kept = np.arange(len(self.ids)) < np.repeat(self._first + wanted, self.lengths)
        return replace(self, ids=self.ids[kept], lengths=wanted)

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
        with path.open("rb") as file:
            return cls.from_bytes(_read_file(file, str(path)), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "token file") -> VideoTokens:
        """Read the bytes of a token file. `name` is its name in error messages. Errors as for `load`."""
        document = _read_document(data, name)
        version, checksum = document.pop("version", None), document.pop("checksum", None)
        if version != _version(document):
            raise TokenFileError(
                f"{name}: version {one_line(repr(version))} of the format, expected {_version(document)} with these"
                " fields; install a newer adaptok"
            )
        if not isinstance(checksum, str) or len(checksum) != len(_BLANK):
            raise TokenFileError(f"{name}: damaged (no checksum); encode the video again")
        blank = data.replace(checksum.encode(), _BLANK.encode(), 1)
        if hashlib.sha256(blank).hexdigest() != checksum:
            raise TokenFileError(f"{name}: damaged (its checksum does not match); encode the video again")
        fields = {key: value for key, value in document.items() if key not in ("padding", "crop")}
        try:
            info, tensors = TokenInfo.parse(fields), load_tensors(data)
            for key in _TYPES.keys() & tensors.keys():
                if tensors[key].dtype != _TYPES[key]:
                    raise ValueError(f"{key} of type {tensors[key].dtype}, expected {_TYPES[key]}")
            return cls(tensors["ids"], tensors["lengths"], info, tensors.get("scores"))
        except (SafetensorError, KeyError, ValueError) as error:
            raise TokenFileError(f"{name}: not a valid token file ({one_line(error)})") from None


def whole_numbers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return values as int64. Raise a ValueError, with `name`, where that would change one of them."""
    array = np.asarray(values)
    if array.size == 0:  # NumPy takes an empty list for floats
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer) or array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} of type {array.dtype}, expected whole numbers, such as an array of int64")
    return array.astype(np.int64)


def _version(fields: Mapping[str, Any]) -> int:
    """Return the lowest version of the format that has these fields."""
    return 2 if VERSION_2_FIELDS & fields.keys() else 1


def _read_file(file: BinaryIO, name: str) -> bytes:
    """Return the content of a file, of which only the beginning is read if it cannot be a token file."""
    head = file.read(_HEADER_LENGTH)
    _check_size(head, name)
    head += file.read(int.from_bytes(head, "little"))
    _read_document(head, name)
    return head + file.read()


def _check_size(head: bytes, name: str) -> int:
    """Return the size of the header that the first bytes of a file declare."""
    size = int.from_bytes(head[:_HEADER_LENGTH], "little")
    if len(head) < _HEADER_LENGTH or size > _MAX_HEADER:
        raise TokenFileError(f"{name}: not a token file, or cut off; expected a file that 'adaptok encode' wrote")
    return size


def _read_document(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in the metadata."""
    size = _check_size(data, name)
    if size > len(data) - _HEADER_LENGTH:
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

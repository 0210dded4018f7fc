"""Streaming: encode frames as they arrive, and decode the tokens block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import ClipLayout, LengthPolicy, Scores
from adaptok.codec.length_selection import BlockScorer, require_scorer
from adaptok.codec.token_file import whole_numbers
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.model import Model
from adaptok.video.geometry import Geometry
from adaptok.video.pixels import check_range, clip_to_frames


class BlockTokens(NamedTuple):
    """Tokens of one block.

    Attributes:
        position: Index of the block in the stream.
        ids: uint16 `[length]`; the ids of all tiles one after another if there are several.
        scores: float32 `[L]`, or `[n, L]` of n tiles: predicted distortions that the lengths were chosen by; None if
            they do not depend on scores.
        lengths: Number of ids of each tile; of the block itself without tiles.
    """

    position: int
    ids: NDArray[np.uint16]
    scores: Scores | None
    lengths: tuple[int, ...] = ()


class Streaming:
    """Session that encodes or decodes one stream.

    A sender calls `push` and `flush`, a receiver `decode`. Attention spans one clip, so memory use is constant.

    Args:
        model: Model in evaluation mode; it needs a scorer if the policy needs scores.
        policy: Length policy of the scope "stream".
        geometry: How frames are fitted to the square of the model, or a function that returns it for the width and
            height of the first frame that is pushed.

    Attributes:
        geometry: How frames are fitted; None before it is known.
        frames: Number of frames that have been pushed.

    Raises:
        ValueError: The model lacks the scorer that the policy needs.
    """

    def __init__(self, model: Model, policy: LengthPolicy, geometry: Geometry | Callable[[int, int], Geometry]) -> None:
        self.model, self.policy = model, policy
        self.geometry = geometry if isinstance(geometry, Geometry) else None
        self._choose_geometry = None if isinstance(geometry, Geometry) else geometry
        self._chooser = policy.stream(ClipLayout.of(model.config))
        self._scorer: BlockScorer | None = None
        self._encoder_cache = model.tokenizer.encoder_cache()
        self._decoder_caches: list[BlockKVCache] = []
        if policy.needs_scores:
            require_scorer(model)
        self._pending: list[Tensor] = []
        self.frames = 0
        self._encoded = self._decoded = 0

    def push(self, frames: NDArray[Any]) -> list[BlockTokens]:
        """Add frames, and encode the blocks that become complete.

        Args:
            frames: `[H, W, 3]` or `[T, H, W, 3]`, uint8 or float in [0, 1], all of the same size.

        Raises:
            ValueError: The shape, type or range of a frame is wrong.
        """
        frames = frames[None] if frames.ndim == 3 else frames
        if frames.ndim != 4 or frames.shape[3] != 3 or min(frames.shape[1:3]) < 1:
            raise ValueError(f"frames of shape {frames.shape}, expected [H, W, 3] or [T, H, W, 3]")
        if np.issubdtype(frames.dtype, np.floating):
            check_range(torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32)))
        elif frames.dtype != np.uint8:
            raise ValueError(f"frames of type {frames.dtype}, expected uint8, or floats in [0, 1]")
        c = self.model.config.tokenizer
        if self.geometry is None:
            assert self._choose_geometry is not None
            self.geometry = self._choose_geometry(frames.shape[2], frames.shape[1])
        blocks = []
        for frame in frames:
            self.frames += 1
            self._pending.append(self.geometry.apply(frame[None]))
            if len(self._pending) == c.temporal_patch_size:
                blocks.append(self._encode_pending())
        return blocks

    def flush(self) -> list[BlockTokens]:
        """Encode the frames that are left, with the last one repeated up to a whole block. This ends the stream."""
        if not self._pending:
            return []
        missing = self.model.config.tokenizer.temporal_patch_size - len(self._pending)
        self._pending += self._pending[-1:] * missing
        return [self._encode_pending()]

    def encode(self, frames: Iterable[NDArray[Any]]) -> Iterator[BlockTokens]:
        """Encode all frames `[H, W, 3]` of a video, and end the stream."""
        for frame in frames:
            yield from self.push(frame)
        yield from self.flush()

    @torch.no_grad()
    def _encode_pending(self) -> BlockTokens:
        assert self.geometry is not None
        block, self._pending = self.geometry.split(torch.cat(self._pending, 1)), []  # [n, C, pt, S, S]
        tokenizer = self.model.tokenizer
        if self._scorer is None and self.policy.needs_scores:
            self._scorer = BlockScorer(self.model, len(block), absolute=self.policy.target is not None)
        if self._encoded % self.model.config.tokenizer.blocks == 0:
            self._encoder_cache.clear()
            if self._scorer is not None:
                self._scorer.reset()
        encoded = tokenizer.encode(block.to(self.model.device), self._encoder_cache)
        quantized = tokenizer.quantize(encoded)
        scores: Scores | None = None
        if self._scorer is not None:
            scores = self._scorer.score(encoded, tokenizer.project_codes(quantized.codes), block).cpu().numpy()
        lengths = [self._chooser.choose(None if scores is None else scores[i]) for i in range(len(block))]
        if self._scorer is not None:
            self._scorer.keep(lengths)
        self._encoded += 1
        kept = np.arange(quantized.ids.shape[2]) < np.array(lengths)[:, None]
        ids = quantized.ids[:, 0].cpu().numpy().astype(np.uint16)[kept]
        shown = scores[0] if scores is not None and len(block) == 1 else scores
        return BlockTokens(self._encoded - 1, ids, shown, tuple(lengths))

    @torch.no_grad()
    def decode(self, block: BlockTokens | NDArray[Any], *, original: bool = True) -> NDArray[np.uint8]:
        """Decode the next block to frames uint8 `[t, H, W, 3]`.

        Args:
            block: Result of `push`; or, without tiles, its ids alone, 0 to K of them.
            original: Return frames of the size that was pushed to this session, or that it was created with. Without
                such a size, and with False, the canvas that the model sees is returned.

        Raises:
            ValueError: There are too many ids, one is outside the codebook, or their number contradicts the lengths of
                the tiles.
        """
        config = self.model.config.tokenizer
        ids = whole_numbers("ids", block.ids if isinstance(block, BlockTokens) else block)
        lengths = (block.lengths if isinstance(block, BlockTokens) else ()) or (ids.size,)
        tiles = 1 if self.geometry is None else self.geometry.tiles
        if len(lengths) != tiles:
            raise ValueError(
                f"lengths of {len(lengths)} tiles, expected {tiles}; give what `push` returned, and to a session that"
                " only receives the fit and the size of the frames"
            )
        size, longest = config.quantizer.codebook_size, max(lengths)
        valid = ids.ndim == 1 and longest <= config.latents and len(ids) == sum(lengths) and min(lengths) >= 0
        if not valid or (len(ids) and not 0 <= ids.min() <= ids.max() < size):
            raise ValueError(f"ids of shape {ids.shape}, expected at most {config.latents} of 0 to {size - 1}")
        while len(self._decoder_caches) < tiles:
            self._decoder_caches.append(self.model.tokenizer.decoder_cache())
        if self._decoded % config.blocks == 0:
            for cache in self._decoder_caches:
                cache.clear()
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        clips = [self._decode_tile(*item) for item in zip(parts, self._decoder_caches, strict=True)]
        self._decoded += 1
        if self.geometry is None:
            return clip_to_frames(clips[0])
        canvas = self.geometry.merge(torch.stack(clips).clamp(0, 1).cpu())
        return self.geometry.invert(canvas) if original else clip_to_frames(canvas)

    def _decode_tile(self, ids: NDArray[np.int64], cache: BlockKVCache) -> Tensor:
        """Decode one block of a tile: `[C, pt, S, S]`."""
        tokenizer = self.model.tokenizer
        inputs = tokenizer.lookup(torch.from_numpy(ids).to(self.model.device))[None, None]
        return tokenizer.decode(inputs, [[len(ids)]], cache)[0].float()

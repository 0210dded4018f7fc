"""Streaming: encode frames as they arrive, and decode the tokens block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import ClipLayout, LengthPolicy, Scores
from adaptok.codec.length_selection import BlockScorer
from adaptok.config.choices import Fit
from adaptok.models.model import Model
from adaptok.video.geometry import Geometry
from adaptok.video.pixels import check_range, clip_to_frames


class BlockTokens(NamedTuple):
    """Tokens of one block.

    position: Index of the block in the stream.
    ids: uint16 `[length]`.
    scores: float32 `[L]`, predicted distortions that the length was chosen by; None if it does not depend on scores.
    """

    position: int
    ids: NDArray[np.uint16]
    scores: Scores | None


class Streaming:
    """Session that encodes or decodes one stream.

    A sender calls `push` and `flush`, a receiver `decode`. Attention spans one clip, so memory use is constant.

    Args:
        model: Model in evaluation mode; it needs a scorer if the policy needs scores.
        policy: Length policy of the scope "stream".
        fit: How frames are fitted to the square of the model.

    Attributes:
        frames: Number of frames that have been pushed.

    Raises:
        ValueError: The model lacks the scorer that the policy needs.
    """

    def __init__(self, model: Model, policy: LengthPolicy, fit: Fit) -> None:
        self.model, self.fit = model, fit
        self.geometry: Geometry | None = None
        self._chooser = policy.stream(ClipLayout.of(model.config))
        self._scorer = BlockScorer(model, 1) if policy.needs_scores else None
        self._encoder_cache, self._decoder_cache = model.tokenizer.encoder_cache(), model.tokenizer.decoder_cache()
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
            self.geometry = Geometry(self.fit, frames.shape[2], frames.shape[1], c.size)
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
        block, self._pending = torch.cat(self._pending, 1)[None], []
        tokenizer = self.model.tokenizer
        if self._encoded % self.model.config.tokenizer.blocks == 0:
            self._encoder_cache.clear()
            if self._scorer is not None:
                self._scorer.reset()
        encoded = tokenizer.encode(block.to(self.model.device), self._encoder_cache)
        quantized = tokenizer.quantize(encoded)
        scores = None
        if self._scorer is not None:
            scores = self._scorer.score(encoded, tokenizer.project_codes(quantized.codes), block)[0].cpu().numpy()
        length = self._chooser.choose(scores)
        if self._scorer is not None:
            self._scorer.keep([length])
        self._encoded += 1
        ids = quantized.ids[0, 0, :length].cpu().numpy().astype(np.uint16)
        return BlockTokens(self._encoded - 1, ids, scores)

    @torch.no_grad()
    def decode(self, block: BlockTokens | NDArray[Any], *, original: bool = True) -> NDArray[np.uint8]:
        """Decode the next block to frames uint8 `[t, H, W, 3]`.

        Args:
            block: Result of `push`, or its ids alone, 0 to K of them.
            original: Return frames of the size that was pushed to this session. A session that only receives always
                returns the square of the model.

        Raises:
            ValueError: There are too many ids, or one is outside the codebook.
        """
        tokenizer, config = self.model.tokenizer, self.model.config.tokenizer
        ids = np.asarray(block.ids if isinstance(block, BlockTokens) else block)
        size = config.quantizer.codebook_size
        if ids.ndim != 1 or len(ids) > config.latents or (len(ids) and not 0 <= ids.min() <= ids.max() < size):
            raise ValueError(f"ids of shape {ids.shape}, expected at most {config.latents} of 0 to {size - 1}")
        if self._decoded % config.blocks == 0:
            self._decoder_cache.clear()
        inputs = tokenizer.lookup(torch.from_numpy(ids.astype(np.int64)).to(self.model.device))[None, None]
        clip = tokenizer.decode(inputs, [[len(ids)]], self._decoder_cache)[0].float()
        self._decoded += 1
        if original and self.geometry is not None:
            return self.geometry.invert(clip.clamp(0, 1).cpu())
        return clip_to_frames(clip)

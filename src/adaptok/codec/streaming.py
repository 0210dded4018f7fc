"""Live video: frames in as they come, tokens out once a block is full, and back to frames block by block."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import ClipLayout, LengthPolicy, Scores
from adaptok.codec.length_selection import calibrate_scores
from adaptok.models.model import Model
from adaptok.video.geometry import Fit, Geometry
from adaptok.video.sources import check_range


class BlockTokens(NamedTuple):
    """Tokens of one block.

    position: of the block, counted from the beginning of the stream.
    ids: uint16 `[length]`.
    scores: float32 `[L]`, the predicted distortions it was chosen by, where there were any.
    """

    position: int
    ids: NDArray[np.uint16]
    scores: Scores | None


class Streaming:
    """Both directions of one stream; a sender needs only `push` and `flush`, a receiver only `decode`.

    Attention reaches back to the beginning of the clip that a block lies in, so memory does not grow.

    Args:
        model: in evaluation mode; with a scorer, where the policy needs scores.
        policy: how lengths are chosen, one block at a time.
        fit: how frames come to the model's square.
    """

    def __init__(self, model: Model, policy: LengthPolicy, fit: Fit) -> None:
        self.model, self.fit = model, fit
        self.geometry: Geometry | None = None
        self._chooser = policy.stream(ClipLayout.of(model.config))
        tokenizer = model.tokenizer
        self._scorer = model.scorer if policy.needs_scores else None
        self._encoder_cache, self._decoder_cache = tokenizer.encoder_cache(), tokenizer.decoder_cache()
        self._scorer_cache = None if self._scorer is None else self._scorer.cache(1)
        self._pending: list[Tensor] = []
        self._lengths: list[int] = []  # of the present clip
        self._inputs: list[Tensor] = []  # of the decoder, for its blocks
        self._encoded = self._decoded = 0

    def push(self, frames: NDArray[Any]) -> list[BlockTokens]:
        """Add frames, `[H, W, 3]` or `[T, H, W, 3]`, uint8 or float in [0, 1], all of one size.

        Returns:
            the blocks that became full.

        Raises:
            ValueError: a frame has another shape, type or range.
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
        done = []
        for frame in frames:
            self._pending.append(self.geometry.apply(frame[None]))
            if len(self._pending) == c.temporal_patch_size:
                done.append(self._encode(torch.cat(self._pending, 1)[None]))
                self._pending = []
        return done

    def flush(self) -> list[BlockTokens]:
        """The last block, where frames are waiting: its last frame is repeated. Ends the stream; call it once."""
        done = []
        if self._pending:
            missing = self.model.config.tokenizer.temporal_patch_size - len(self._pending)
            done.append(self._encode(torch.cat(self._pending + self._pending[-1:] * missing, 1)[None]))
            self._pending = []
        return done

    @torch.no_grad()
    def _encode(self, clip: Tensor) -> BlockTokens:
        tokenizer, config = self.model.tokenizer, self.model.config.tokenizer
        place = self._encoded % config.blocks
        if place == 0:
            self._encoder_cache.keep(0)
            self._lengths, self._inputs = [], []
            if self._scorer_cache is not None:
                self._scorer_cache.keep(0)
        encoded = tokenizer.encode(clip.to(self.model.device), first_block=place, cache=self._encoder_cache)
        quantized = tokenizer.quantize(encoded)
        scores = None
        if self._scorer is not None and self._scorer_cache is not None:
            inputs = tokenizer.project_codes(quantized.codes)
            full = [[*self._lengths, config.latents]]
            raw = self._scorer(encoded, inputs, full, first_block=place, cache=self._scorer_cache, update_cache=False)
            self._inputs.append(inputs)
            known = torch.cat(self._inputs, 1)
            predicted = self._scorer.denormalize(raw)[:, 0]
            scores = calibrate_scores(self.model, predicted, clip, known, self._lengths)[0].cpu().numpy()
        length = self._chooser.choose(scores)
        self._lengths.append(length)
        if self._scorer is not None and self._scorer_cache is not None and place < config.blocks - 1:
            self._scorer.prefill(encoded, inputs, [self._lengths], first_block=place, cache=self._scorer_cache)
        self._encoded += 1
        ids = quantized.ids[0, 0, :length].cpu().numpy().astype(np.uint16)
        return BlockTokens(self._encoded - 1, ids, scores)

    @torch.no_grad()
    def decode(self, block: BlockTokens | NDArray[Any], *, original: bool = True) -> NDArray[np.uint8]:
        """The next block's ids back to its frames, uint8 `[t, H, W, 3]`.

        Args:
            block: as it came from `push`, or its ids alone, 0 to K of them.
            original: at the size of the frames that were pushed here; the model's square for a mere receiver.

        Raises:
            ValueError: too many ids, or one outside the codebook.
        """
        tokenizer, config = self.model.tokenizer, self.model.config.tokenizer
        ids = np.asarray(block.ids if isinstance(block, BlockTokens) else block)
        top = config.quantizer.codebook_size
        if ids.ndim != 1 or len(ids) > config.latents or (len(ids) and not 0 <= ids.min() <= ids.max() < top):
            raise ValueError(f"ids of shape {ids.shape}, expected at most {config.latents} of 0 to {top - 1}")
        place = self._decoded % config.blocks
        if place == 0:
            self._decoder_cache.keep(0)
        inputs = tokenizer.lookup(torch.from_numpy(ids.astype(np.int64)).to(self.model.device))[None, None]
        clip = tokenizer.decode(inputs, [[len(ids)]], first_block=place, cache=self._decoder_cache)[0]
        self._decoded += 1
        clip = clip.float().clamp(0, 1).cpu()
        if original and self.geometry is not None:
            return self.geometry.invert(clip)
        return (clip * 255).round().byte().permute(1, 2, 3, 0).numpy()

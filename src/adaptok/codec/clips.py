"""Encoding, scoring and decoding of clips.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels per side, `g` blocks per clip in a call (at most the `G` of a
whole clip), `K` latents per block, `L` = K / length_step candidate lengths, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import ClipLayout, LengthChooser, LengthPolicy, Scores
from adaptok.checkpoints.pretrained import Pretrained
from adaptok.codec.cumulative_scores import cumulative_scores
from adaptok.codec.length_selection import BlockScorer, calibrate_scores, require_scorer
from adaptok.config.model import ModelConfig
from adaptok.models.model import Model
from adaptok.video.pixels import check_range


class EncodedClips(NamedTuple):
    """Latents of clips.

    ids: int64 `[B, g, K]` in [0, codebook size).
    encoded: `[B, g, K, D]` encoder outputs, which a scorer may read.
    inputs: `[B, g, K, D]` quantized and projected latents, which the decoder and the scorer read.
    clips: `[B, C, T, S, S]`, the pixels; None if the scorer does not read them, and scores are never measured.
    """

    ids: Tensor
    encoded: Tensor
    inputs: Tensor
    clips: Tensor | None = None

    def at(self, index: int) -> EncodedClips:
        """Return one of the clips, as a batch of one."""
        row = slice(index, index + 1)
        clips = None if self.clips is None else self.clips[row]
        return EncodedClips(self.ids[row], self.encoded[row], self.inputs[row], clips)

    def pixels(self, block: int) -> Tensor | None:
        """Return the frames `[B, C, pt, S, S]` of one block of every clip, if pixels are kept."""
        if self.clips is None:
            return None
        size = self.clips.shape[2] // self.ids.shape[1]
        return self.clips[:, :, block * size : (block + 1) * size]


class ClipCodec(Pretrained):
    """Encoder, scorer and decoder of clips.

    Args:
        model: Model; it is put into evaluation mode.
        weights_hash: SHA-256 of the tokenizer's weights, which token files store.
    """

    model: Model

    def __init__(self, model: Model, weights_hash: str) -> None:
        self.model = model.eval()
        self.weights_hash = weights_hash

    def __repr__(self) -> str:
        c = self.config.tokenizer
        return self._describe(
            f"clips of {c.frames} frames of {c.size}x{c.size} in {c.blocks} blocks of up to {c.latents} tokens",
            f"codebook of {c.quantizer.codebook_size}",
        )

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.model.tokenizer.dtype

    @property
    def max_budget(self) -> int:
        """Tokens of a clip when every token is kept."""
        return self.config.tokenizer.blocks * self.config.tokenizer.latents

    @property
    def length_step(self) -> int:
        """Distance between candidate lengths; 1 for a model without a scorer."""
        return self.layout.length_step

    @property
    def layout(self) -> ClipLayout:
        """Layout of the tokens of a clip."""
        return ClipLayout.of(self.config)

    def check_policy(self, policy: LengthPolicy) -> None:
        """Raise a ValueError if the policy does not fit the model: its budget, scorer or effort."""
        policy.check(self.layout)
        if policy.needs_scores:
            scorer = require_scorer(self.model)
            effort = self.used_effort(policy)
            if effort > 1 and scorer.config.distortion == "lpips":
                raise ValueError(
                    f"effort {effort} with a scorer of LPIPS, which cannot be measured without weights of its own;"
                    " expected 0 or 1"
                )

    def used_effort(self, policy: LengthPolicy) -> int:
        """Return the effort at which this model scores blocks for a policy: 0 wherever `effort` has no effect."""
        scorer = self.config.scorer
        cumulative = scorer is not None and scorer.target == "cumulative"
        scored = policy.needs_scores and not policy.causal and policy.budget is not None
        return policy.effort if cumulative and scored else 0

    @torch.no_grad()
    def encode_clips(self, clips: Tensor) -> EncodedClips:
        """Encode clips.

        Args:
            clips: float `[B, C, T, S, S]` in [0, 1], where T is a multiple of the frames per block, at most a clip's.

        Raises:
            ValueError: The shape, type or range of the clips is wrong, or a value is not finite.
        """
        self._check_clips(clips)
        tokenizer, scorer = self.model.tokenizer, self.config.scorer
        encoded = tokenizer.encode(clips.to(self.device, torch.float32))
        quantized = tokenizer.quantize(encoded)
        kept = scorer is not None and (
            scorer.probe_lengths or scorer.target == "cumulative" or scorer.reads != "latents"
        )
        inputs = tokenizer.project_codes(quantized.codes)
        return EncodedClips(quantized.ids, encoded, inputs, clips if kept else None)

    @torch.no_grad()
    def score_clips(
        self, encoded: EncodedClips, lengths: Sequence[Sequence[int]] | Tensor | None = None, *, normalized: bool = True
    ) -> Tensor:
        """Predict the distortion of every block at every candidate length, given the lengths of earlier blocks.

        Args:
            encoded: The clips.
            lengths: `[B, g]` length of each block; None keeps every token.
            normalized: Return the outputs of the network, with zero mean and unit variance over the training data
                (the official program's scores). False returns mean distortions of blocks, calibrated to measurements
                at the scorer's probe lengths.

        Returns:
            float32 `[B, g, L]`. Column j is for the length `(j + 1) * length_step`. Columns above the length of a block
            are meaningless; calibrated ones need whole blocks up to the last probe length that a length reaches.

        Raises:
            ValueError: The model has no scorer, or the lengths do not fit the clips.
        """
        scorer = require_scorer(self.model)
        b, g, k = encoded.ids.shape
        rows = [[k] * g] * b if lengths is None else check_lengths(lengths, b, g, k)
        scores = scorer(scorer.features(encoded.clips, encoded.encoded), encoded.inputs, rows)
        if normalized:
            return scores
        scores = scorer.denormalize(scores)
        cache = None
        if lengths is None and scorer.config.probe_lengths[-1:] == (k,):  # measuring leaves whole blocks in the cache
            cache = self.model.tokenizer.decoder_cache(candidates=scorer.config.probe_lengths)
        calibrated = []
        for i in range(g):
            inputs, earlier = encoded.inputs[:, : i + 1], [row[:i] for row in rows]
            calibrated.append(calibrate_scores(self.model, scores[:, i], encoded.pixels(i), inputs, earlier, cache))
        return torch.stack(calibrated, 1)

    @torch.no_grad()
    def allocation_scores(self, encoded: EncodedClips, policy: LengthPolicy | None = None) -> Tensor:
        """Score every block at every candidate length, by terms that add up to what an allocation minimizes.

        Scores of a target "block" are calibrated distortions of blocks, as `score_clips` returns. Those of a target
        "cumulative" also count what later blocks gain from a token, and are relative to the distortion of the clip,
        unless the policy has a target distortion; see `cumulative_scores`.

        Args:
            encoded: The clips.
            policy: Policy that the scores are for. None suits all budgets.

        Returns:
            float32 `[B, g, L]`. Column j is for the length `(j + 1) * length_step`.

        Raises:
            ValueError: The model has no scorer.
        """
        if require_scorer(self.model).config.target == "block":
            return self.score_clips(encoded, normalized=False)
        policy = LengthPolicy() if policy is None else policy
        budget = policy.mean_length(self.layout) if policy.needs_scores else None
        return cumulative_scores(
            self.model,
            encoded.encoded,
            encoded.inputs,
            encoded.clips,
            budget,
            self.used_effort(policy),
            relative=policy.target is None,
        )

    @torch.no_grad()
    def choose_lengths(
        self, encoded: EncodedClips, choose: LengthChooser, *, absolute: bool = False
    ) -> tuple[NDArray[np.int64], Scores]:
        """Choose lengths block by block, where each block is scored given the lengths of those before it.

        Args:
            encoded: The clips.
            choose: Function that returns lengths `[B]`, given the predicted distortions `[B, L]` of one block of all
                clips and its index; see `LengthPolicy.chooser`.
            absolute: Give that function distortions, as a policy with a target needs them; see `BlockScorer`.

        Returns:
            The lengths `[B, g]`, and the scores `[B, g, L]` that they were chosen by.

        Raises:
            ValueError: The model has no scorer.
        """
        b, g, _ = encoded.ids.shape
        scorer = BlockScorer(self.model, b, absolute=absolute)
        lengths, scores = [], []
        for i in range(g):
            block = slice(i, i + 1)
            predicted = scorer.score(encoded.encoded[:, block], encoded.inputs[:, block], encoded.pixels(i))
            scores.append(predicted.cpu().numpy())
            lengths.append(choose(scores[-1], i))
            scorer.keep(lengths[-1].tolist())
        return np.stack(lengths, 1), np.stack(scores, 1)

    @torch.no_grad()
    def decode_clips(self, ids: Tensor, lengths: Sequence[Sequence[int]] | Tensor) -> Tensor:
        """Decode clips.

        Args:
            ids: int `[B, g, K']`, where K' is at most K. Ids past the length of a block are ignored.
            lengths: `[B, g]`, at most K'.

        Returns:
            float32 `[B, C, T, S, S]`. Values are not clamped to [0, 1].

        Raises:
            ValueError: The ids or lengths are invalid.
        """
        c = self.config.tokenizer
        if ids.ndim != 3 or ids.is_floating_point() or ids.shape[1] > c.blocks or ids.shape[2] > c.latents:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)} and type {ids.dtype},"
                f" expected integers [B, 1..{c.blocks}, 0..{c.latents}]"
            )
        rows = check_lengths(lengths, *ids.shape)
        kept = torch.arange(ids.shape[2]) < torch.tensor(rows)[..., None]
        ids = ids.long().cpu() * kept  # dropped positions may hold anything
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < c.quantizer.codebook_size:
            raise ValueError(
                f"ids from {int(ids.min())} to {int(ids.max())}, expected 0 to {c.quantizer.codebook_size - 1}"
            )
        return self.model.tokenizer.decode(self.model.tokenizer.lookup(ids.to(self.device)), rows).float()

    def _check_clips(self, clips: Tensor) -> None:
        c = self.config.tokenizer
        shape, pt = tuple(clips.shape), c.temporal_patch_size
        fits = len(shape) == 5 and shape[0] > 0 and shape[1] == c.channels and shape[3:] == (c.size, c.size)
        if not fits or not clips.is_floating_point() or shape[2] % pt or not 0 < shape[2] <= c.frames:
            raise ValueError(
                f"clips of shape {shape} and type {clips.dtype}, expected float"
                f" [B, {c.channels}, T, {c.size}, {c.size}]"
                f" with T a multiple of {pt} up to {c.frames}"
            )
        check_range(clips)


def check_lengths(lengths: Sequence[Sequence[int]] | Tensor, clips: int, blocks: int, latents: int) -> list[list[int]]:
    """Return lengths `[B, g]` as lists. Raise a ValueError if their number is wrong, or one is not in 0..latents."""
    rows: list[list[int]] = torch.as_tensor(lengths).tolist()
    if len(rows) != clips or any(not isinstance(row, list) or len(row) != blocks for row in rows):
        raise ValueError(f"lengths of shape {tuple(torch.as_tensor(lengths).shape)}, expected ({clips}, {blocks})")
    for length in (length for row in rows for length in row):
        if not isinstance(length, int) or not 0 <= length <= latents:
            raise ValueError(f"length {length!r}, expected an integer from 0 to {latents}")
    return rows

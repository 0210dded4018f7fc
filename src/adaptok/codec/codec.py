"""AdapTok: encode videos into adaptive sequences of discrete tokens, and decode them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy, Lengths, Scores
from adaptok.checkpoints.hub import local_folder, upload
from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.codec.clips import ClipCodec
from adaptok.codec.length_selection import require_scorer
from adaptok.codec.streaming import Streaming
from adaptok.codec.token_file import TokenInfo, TokenMismatchError, VideoTokens
from adaptok.config.choices import Fit, Scope
from adaptok.utils.devices import pick_device, pick_dtype
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sources import FrameSource, Video, open_frames

Frames = NDArray[np.uint8]
Progress = Callable[[int], None]
"""Called with the number of frames that have just been processed."""


class AdapTok(ClipCodec):
    """Encoder and decoder of videos. `AdapTok.from_pretrained()` loads the bundled model."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
    ) -> AdapTok:
        """Load a model.

        Args:
            name: A model folder or a hub id `owner/name`, of this project's or the official layout. None loads the
                bundled model.
            device: A torch device. "auto" selects CUDA if available, else MPS, else the CPU.
            dtype: "float32", "bfloat16" or "float16", the type of weights and computation.

        Raises:
            FileNotFoundError: There is no such folder.
            CheckpointError: The folder is damaged, or its weights do not fit its configuration.
            ValueError: `device` or `dtype` is unrecognized or unavailable.
        """
        torch_device, torch_dtype = pick_device(device), pick_dtype(dtype)
        with local_folder(name) as folder:
            checkpoint = read_folder(folder)
        return cls(checkpoint.build().to(torch_device, torch_dtype), checkpoint.hash())

    def save_pretrained(self, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> None:
        """Write a model folder of this project's layout.

        Args:
            folder: Folder to write; it is created if necessary.
            dtype: Type of the stored weights; None keeps the present one.
        """
        write_folder(self.model, folder, self.dtype if dtype is None else pick_dtype(dtype))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model folder to the Hugging Face hub, and return its address."""
        return upload(self.save_pretrained, repo_id, private=private, token=token)

    def encode(
        self,
        video: Video,
        budget: float | Sequence[float] | None = None,
        scope: Scope = "video",
        *,
        target: float | None = None,
        uniform: bool = False,
        fit: Fit = "crop",
        batch_size: int = 4,
        keep_scores: bool = True,
        start: float = 0.0,
        stop: float | None = None,
        fps: Fraction | float | None = None,
        progress: Progress | None = None,
    ) -> VideoTokens:
        """Encode a video of any length and size.

        Args:
            video: A path; frames uint8 `[T, H, W, 3]`; or consecutive clips float `[B, 3, T, H, W]` in [0, 1].
            budget, scope, target, uniform: How lengths are chosen; see `LengthPolicy`. Without a budget or target,
                every token is kept.
            fit: How frames are fitted to the square of the model: "crop", "pad" or "stretch".
            batch_size: Clips computed at once. Only results of the scope "batch" depend on it.
            keep_scores: Keep predicted distortions, which `VideoTokens.truncate` needs.
            start, stop: Part of the video to encode, in seconds.
            fps: Frames per second: the rate to sample a file at, or the rate of an array.
            progress: Called with the number of frames that have just been processed.

        Raises:
            ValueError: An argument is out of range, or the model lacks the scorer that the policy needs.
            VideoError: The file cannot be read.
        """
        policy = LengthPolicy(budget, scope, target, uniform)
        self.check_policy(policy)
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size}, expected at least 1")
        with open_frames(video, start=start, stop=stop, fps=fps) as source:
            geometry = Geometry(fit, source.width, source.height, self.config.tokenizer.size)
            parts = []
            for part in self._encode_parts(source, geometry, policy, batch_size, keep_scores):
                parts.append(part)
                if progress is not None:
                    progress(part.frames)
            info = self._info(geometry, sum(part.frames for part in parts), source.fps)
            return self._join(parts, policy, info, keep_scores, source.warning)

    def check_policy(self, policy: LengthPolicy) -> None:
        """Raise a ValueError if a budget is out of range, or the model lacks the scorer that the policy needs."""
        policy.check(self.layout)
        if policy.needs_scores:
            require_scorer(self.model)

    def iter_decode(
        self,
        tokens: VideoTokens,
        *,
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> Iterator[Frames]:
        """Decode a video clip by clip: frames uint8 `[t, H, W, 3]`. Arguments and errors as for `decode`."""
        self.check_tokens(tokens, any_model=any_model)
        geometry = tokens.info.geometry
        left = tokens.info.frames
        for clip in self.iter_decode_clips(tokens, batch_size=batch_size):
            clip = clip[:, :left]
            yield geometry.invert(clip) if original else clip_to_frames(clip)
            left -= clip.shape[1]
            if progress is not None:
                progress(clip.shape[1])

    def iter_decode_clips(self, tokens: VideoTokens, *, batch_size: int = 4) -> Iterator[Tensor]:
        """Decode clips float32 `[C, t, S, S]` in [0, 1] one by one. The last one includes its padding."""
        g = self.config.tokenizer.blocks
        ids, lengths = torch.from_numpy(tokens.padded()), tokens.lengths.tolist()
        full = len(lengths) // g * g
        edges = sorted({*range(0, full, g * batch_size), full, len(lengths)})  # the last clip may have fewer blocks
        for first, stop in pairwise(edges):
            blocks = min(g, stop - first)
            rows = [lengths[i : i + blocks] for i in range(first, stop, blocks)]
            longest = max(max(row) for row in rows)
            batch = ids[first:stop, :longest].unflatten(0, (-1, blocks))
            yield from self.decode_clips(batch, rows).clamp(0, 1).cpu()

    def decode(
        self,
        tokens: VideoTokens | str | Path,
        *,
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> Frames:
        """Decode a whole video into memory.

        Args:
            tokens: Tokens, or the path of a token file.
            original: Return frames of the video's own size, black where the model saw nothing. False returns the square
                of the model.
            any_model: Decode tokens that another model wrote, if their layout fits.
            batch_size: Clips computed at once.
            progress: Called with the number of frames that have just been processed.

        Returns:
            uint8 `[T, H, W, 3]`, at `tokens.info.fps` frames per second.

        Raises:
            TokenMismatchError: Another model wrote the tokens.
            TokenFileError: The token file is damaged.
        """
        if not isinstance(tokens, VideoTokens):
            tokens = VideoTokens.load(tokens)
        clips = self.iter_decode(
            tokens, original=original, any_model=any_model, batch_size=batch_size, progress=progress
        )
        return np.concatenate(list(clips))

    def reconstruct(
        self, video: Video, budget: float | Sequence[float] | None = None, scope: Scope = "video", **options: Any
    ) -> tuple[Frames, VideoTokens]:
        """Encode and decode a video. Arguments as for `encode`; returns frames as `decode` does, and the tokens."""
        tokens = self.encode(video, budget, scope, **options)
        return self.decode(tokens, batch_size=options.get("batch_size", 4)), tokens

    def streaming(
        self,
        budget: float | None = None,
        *,
        target: float | None = None,
        uniform: bool = False,
        fit: Fit = "crop",
    ) -> Streaming:
        """Begin a streaming session, for live video.

        Args:
            budget: Tokens per clip that the running average follows. None keeps every token.
            target: Largest predicted distortion of a block, as an alternative to a budget.
            uniform: Distribute the budget evenly.
            fit: How frames are fitted to the square of the model.

        Raises:
            ValueError: An argument is out of range, or the model lacks the scorer that the policy needs.
        """
        policy = LengthPolicy(budget, "stream", target, uniform)
        self.check_policy(policy)
        return Streaming(self.model, policy, fit)

    def check_tokens(self, tokens: VideoTokens, *, any_model: bool = False) -> None:
        """Check that this model can decode tokens.

        Raises:
            TokenMismatchError: Their layout does not fit; or another model wrote them, and `any_model` is False.
        """
        info, c = tokens.info, self.config.tokenizer
        theirs = (info.codebook_size, info.latents, info.block_frames, info.clip_blocks, info.size)
        ours = (c.quantizer.codebook_size, c.latents, c.temporal_patch_size, c.blocks, c.size)
        if theirs != ours:
            raise TokenMismatchError(
                f"the tokens were written by the model {info.model!r}, whose codebook, latents, block, clip and size"
                f" {theirs} do not fit {self.config.name!r} {ours}; give the model that wrote them"
            )
        if info.model_hash != self.weights_hash and not any_model:
            raise TokenMismatchError(
                f"the tokens were written by the model {info.model!r} with weights {info.model_hash[:12]}, this is"
                f" {self.config.name!r} with {self.weights_hash[:12]}; give that model, or insist with --any-model"
            )

    def iter_clips(self, source: FrameSource, geometry: Geometry, batch: int) -> Iterator[tuple[Tensor, int]]:
        """Cut a video into batches of clips.

        Yields:
            Clips `[b, C, t, S, S]` and the number of frames in them. Only in the last batch t may be less than a clip;
            there the last frame is repeated up to a whole block.
        """
        c = self.config.tokenizer
        clips = (clip for _, clip in iter_clips(source.frames, geometry.apply, c.frames))
        last: Tensor | None = None
        while group := list(islice(clips, batch)):
            if group[-1].shape[1] < c.frames:
                last = group.pop()
            if group:
                yield torch.stack(group), len(group) * c.frames
        if last is not None:
            count = last.shape[1]
            yield pad_clip(last, count + -count % c.temporal_patch_size)[None], count

    def _encode_parts(
        self, source: FrameSource, geometry: Geometry, policy: LengthPolicy, batch_size: int, keep_scores: bool
    ) -> Iterator[_Part]:
        if policy.causal and policy.scope == "stream":
            yield from self._encode_stream(source, policy, geometry.fit)
            return
        scored = policy.needs_scores or (keep_scores and self.model.scorer is not None)
        for clips, frames in self.iter_clips(source, geometry, batch_size):
            encoded = self.encode_clips(clips)
            ids = encoded.ids.flatten(0, 1).cpu().numpy().astype(np.uint16)
            scores = lengths = None
            if policy.causal:
                chosen, predicted = self.choose_lengths(encoded, policy.chooser(self.layout))
                lengths, scores = chosen.reshape(-1), predicted.reshape(-1, predicted.shape[-1])
            elif scored:
                scores = self.score_clips(encoded, normalized=False).flatten(0, 1).cpu().numpy()
            yield _Part(frames, ids, scores, lengths)

    def _encode_stream(self, source: FrameSource, policy: LengthPolicy, fit: Fit) -> Iterator[_Part]:
        stream = Streaming(self.model, policy, fit)
        frames = 0
        for block in stream.encode(source.frames):
            ids = np.zeros((1, self.config.tokenizer.latents), np.uint16)
            ids[0, : len(block.ids)] = block.ids
            scores = None if block.scores is None else block.scores[None]
            yield _Part(stream.frames - frames, ids, scores, np.array([len(block.ids)]))
            frames = stream.frames

    def _info(self, geometry: Geometry, frames: int, fps: Fraction) -> TokenInfo:
        c = self.config.tokenizer
        return TokenInfo(
            model=self.config.name,
            model_hash=self.weights_hash,
            codebook_size=c.quantizer.codebook_size,
            latents=c.latents,
            length_step=self.length_step,
            block_frames=c.temporal_patch_size,
            clip_blocks=c.blocks,
            frames=frames,
            rate=f"{fps.numerator}/{fps.denominator}",
            width=geometry.width,
            height=geometry.height,
            fit=geometry.fit,
            size=c.size,
        )

    def _join(
        self, parts: Sequence[_Part], policy: LengthPolicy, info: TokenInfo, keep_scores: bool, warning: str | None
    ) -> VideoTokens:
        """Join the parts of a video, and choose the lengths that are not chosen yet."""
        ids = np.concatenate([part.ids for part in parts])
        scored = [part.scores for part in parts if part.scores is not None]
        scores = np.concatenate(scored) if scored else None
        if policy.causal:
            lengths = np.concatenate([part.lengths for part in parts if part.lengths is not None])
        else:
            lengths = policy.lengths(scores, len(ids), self.layout)
        kept = np.arange(ids.shape[1]) < lengths[:, None]
        return VideoTokens(ids[kept], lengths, info, scores if keep_scores else None, warning)


class _Part(NamedTuple):
    """Encoded part of a video.

    frames: Number of frames, without padding.
    ids: `[n, K]` of its n blocks.
    scores: `[n, L]`, if they are needed.
    lengths: `[n]`, if the policy is causal.
    """

    frames: int
    ids: NDArray[np.uint16]
    scores: Scores | None
    lengths: Lengths | None

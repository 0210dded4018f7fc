"""The codec: video in, adaptive tokens out, and video back.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels of the model's square, `g` blocks of a call (at most the `G`
of a clip), `K` latents of a block, `L` = K / step candidate lengths, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import ClipLayout, LengthPolicy, Scope, Scores
from adaptok.checkpoints.model_folder import DTYPES, read_folder, resolve, write_folder
from adaptok.codec.length_selection import calibrate_scores
from adaptok.codec.streaming import BlockTokens, Streaming
from adaptok.codec.token_file import TokenInfo, TokenMismatchError, VideoTokens
from adaptok.config.model import ModelConfig
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.model import Model
from adaptok.models.scorer import Scorer
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Fit, Geometry
from adaptok.video.sources import FrameSource, Video, check_range, open_frames

BUNDLED = "adaptok-tiny"
"""The model in the box, under `assets/`."""

Frames = NDArray[np.uint8]
Ids = NDArray[np.uint16]
Progress = Callable[[int], None]
"""Called with the number of frames that were just finished."""


class EncodedClips(NamedTuple):
    """What the encoder makes of clips.

    ids: int64 `[B, g, K]` in [0, codebook size).
    encoded: `[B, g, K, D]`, out of the encoder: one half of what the scorer reads.
    inputs: `[B, g, K, D]`, quantized and projected: the other half, and what the decoder reads.
    clips: `[B, C, T, S, S]` that they are of, where the scorer has probe lengths to measure.
    """

    ids: Tensor
    encoded: Tensor
    inputs: Tensor
    clips: Tensor | None = None


class AdapTok:
    """Video to adaptive tokens and back. `AdapTok.from_pretrained()` gives the model in the box.

    Args:
        model: the parts; it is put into evaluation mode.
        weights_hash: SHA-256 of its tokenizer's weights, which token files remember.
    """

    def __init__(self, model: Model, weights_hash: str) -> None:
        self.model = model.eval()
        self.weights_hash = weights_hash

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
            name: a folder, or a hub id `owner/name`, of our layout or the official one; None is the model in the box.
            device: a torch device; "auto" takes CUDA, then MPS, then the CPU.
            dtype: "float32", "bfloat16" or "float16", of weights and computation.

        Raises:
            FileNotFoundError: there is no such folder.
            CheckpointError: the folder is damaged, or its weights do not fit its configuration.
            ValueError: device or dtype is unknown, or not to be had.
        """
        where, kind = pick_device(device), pick_dtype(dtype)
        if name is None:
            with as_file(files("adaptok") / "assets" / BUNDLED) as folder:
                checkpoint = read_folder(folder)
        else:
            checkpoint = read_folder(resolve(name))
        return cls(checkpoint.build().to(where, kind), checkpoint.hash())

    def save_pretrained(self, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> None:
        """Write a model folder of our layout; `dtype` is that of the stored weights, the present one if None."""
        write_folder(self.model, folder, self.dtype if dtype is None else pick_dtype(dtype))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model folder to the Hugging Face hub, and return its address."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api.upload_folder(repo_id=repo_id, folder_path=folder)
        return str(url)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.tokenizer.dtype

    @property
    def max_budget(self) -> int:
        """Tokens of a clip with every latent kept."""
        return self.config.tokenizer.blocks * self.config.tokenizer.latents

    @property
    def length_step(self) -> int:
        """Distance between candidate lengths; 1 for a model without a scorer."""
        return self.layout.length_step

    @property
    def layout(self) -> ClipLayout:
        """Blocks of a clip, their latents and step."""
        return ClipLayout.of(self.config)

    # Clips: for trainers and pipelines.

    @torch.no_grad()
    def encode_clips(self, clips: Tensor) -> EncodedClips:
        """Clips `[B, C, T, S, S]` in [0, 1] to latents; T is a multiple of the block's frames, up to a clip's.

        Raises:
            ValueError: shape, type or range is another, or a value is not finite.
        """
        self._check_clips(clips)
        tokenizer = self.model.tokenizer
        encoded = tokenizer.encode(clips.to(self.device, torch.float32))
        quantized = tokenizer.quantize(encoded)
        scorer = self.config.scorer
        measured = clips if scorer is not None and scorer.probe_lengths else None
        return EncodedClips(quantized.ids, encoded, tokenizer.project_codes(quantized.codes), measured)

    @torch.no_grad()
    def score_clips(
        self, latents: EncodedClips, lengths: Sequence[Sequence[int]] | Tensor | None = None, *, normalized: bool = True
    ) -> Tensor:
        """Scores float32 `[B, g, L]`: column j is for the length (j + 1) * step of a block.

        A block is scored given what earlier blocks keep. Columns past a block's own length say nothing about the clip;
        corrected ones (see `normalized`) need whole blocks from the last probe length that a length reaches.

        Args:
            lengths: `[B, g]` what each block keeps; None keeps everything.
            normalized: as the network gives them, zero mean and unit variance over its training data (what the
                official program calls scores); False gives distortions, the mean over the block, corrected by what
                is measured at the scorer's probe lengths, where it has any.

        Raises:
            ValueError: the model has no scorer, or lengths do not fit.
        """
        scorer = self._scorer()
        b, g, k = latents.ids.shape
        rows = [[k] * g] * b if lengths is None else check_lengths(lengths, b, g, k)
        scores = scorer(latents.encoded, latents.inputs, rows)
        if normalized:
            return scores
        scores = scorer.denormalize(scores)
        cache = None
        if lengths is None and scorer.config.probe_lengths[-1:] == (
            k,
        ):  # each block is left behind as later ones see it
            cache = self.model.tokenizer.decoder_cache()
        corrected = [self._anchored(latents, scores[:, i], [row[:i] for row in rows], cache) for i in range(g)]
        return torch.stack(corrected, 1)

    @torch.no_grad()
    def decode_clips(self, ids: Tensor, lengths: Sequence[Sequence[int]] | Tensor) -> Tensor:
        """Ids int `[B, g, K']` and lengths `[B, g]`, at most K', to clips float32 `[B, C, T, S, S]`.

        Values are as the model gives them, not clamped to [0, 1]. Ids past a length are not looked at.

        Raises:
            ValueError: ids or lengths do not fit.
        """
        c = self.config.tokenizer
        if ids.ndim != 3 or ids.is_floating_point() or ids.shape[1] > c.blocks or ids.shape[2] > c.latents:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)} and type {ids.dtype},"
                f" expected integers [B, 1..{c.blocks}, 0..{c.latents}]"
            )
        rows = check_lengths(lengths, *ids.shape)
        kept = torch.arange(ids.shape[2]) < torch.tensor(rows)[..., None]
        ids = ids.long().cpu() * kept  # what was dropped may hold anything
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < c.quantizer.codebook_size:
            raise ValueError(
                f"ids from {int(ids.min())} to {int(ids.max())}, expected 0 to {c.quantizer.codebook_size - 1}"
            )
        return self.model.tokenizer.decode(self.model.tokenizer.lookup(ids.to(self.device)), rows).float()

    # Videos.

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
            video: a path; frames uint8 `[T, H, W, 3]`; or consecutive clips float `[B, 3, T, H, W]` in [0, 1].
            budget: tokens per clip, on average over what the scope spans; None keeps every latent. For the scope
                "batch" it may be a list: tokens per block for each of the G block indices.
            scope: what shares the budget: all blocks of the "video", the blocks of each "clip", the same block of all
                clips in a "batch" (the official procedure), or "stream": block by block, knowing no later one.
            target: instead of a budget, the predicted distortion that what shares it may have on average.
            uniform: spend the budget evenly, whatever the scores say.
            fit: how frames come to the model's square: "crop", "pad" or "stretch".
            batch_size: clips computed at once. Only the results of the scope "batch" depend on it.
            keep_scores: keep predicted distortions, so that `VideoTokens.truncate` works.
            start, stop: part of the video, in seconds.
            fps: frames per second to sample a file at, or that an array has.
            progress: called with the number of frames just finished.

        Raises:
            ValueError: an argument is out of its range, or the model lacks the scorer that the scope needs.
            VideoError: the file cannot be read.
        """
        policy = LengthPolicy(budget, scope, target, uniform)
        policy.check(self.layout)
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size}, expected 1 or more")
        scored = policy.needs_scores or (keep_scores and self.config.scorer is not None)
        if scored:
            self._scorer()
        with open_frames(video, start=start, stop=stop, fps=fps) as source:
            geometry = Geometry(fit, source.width, source.height, self.config.tokenizer.size)
            if policy.causal and scope == "stream":
                pieces = self._encode_stream(source, geometry, policy)
            else:
                pieces = self._encode_batches(source, geometry, policy, batch_size, scored)
            done = []
            for piece in pieces:
                done.append(piece)
                if progress is not None:
                    progress(piece.frames)
            frames = sum(piece.frames for piece in done)
            info = self._info(geometry, frames, source.fps)
            warning = source.warning
        ids = np.concatenate([piece.ids for piece in done])
        scores = np.concatenate([piece.scores for piece in done if piece.scores is not None]) if scored else None
        if policy.causal:
            lengths = np.concatenate([piece.lengths for piece in done if piece.lengths is not None])
        else:
            lengths = policy.lengths(scores, len(ids), self.layout)
        kept = np.arange(ids.shape[1]) < lengths[:, None]
        return VideoTokens(ids[kept], lengths, info, scores if keep_scores else None, warning)

    def iter_decode(
        self,
        tokens: VideoTokens,
        *,
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> Iterator[Frames]:
        """Frames uint8 `[t, H, W, 3]`, clip after clip; arguments and errors as for `decode`."""
        self.check_tokens(tokens, any_model=any_model)
        geometry = info_geometry(tokens.info)
        left = tokens.info.frames
        for clip in self.iter_decode_clips(tokens, batch_size=batch_size):
            count = min(left, clip.shape[1])
            clip = clip[:, :count]
            yield geometry.invert(clip) if original else to_bytes(clip)
            left -= count
            if progress is not None:
                progress(count)

    def iter_decode_clips(self, tokens: VideoTokens, *, batch_size: int = 4) -> Iterator[Tensor]:
        """Clips float32 `[C, t, S, S]` in [0, 1] one by one, the last with its padding."""
        g = self.config.tokenizer.blocks
        rows, lengths = torch.from_numpy(tokens.padded()), tokens.lengths.tolist()
        full = len(lengths) // g * g
        groups = [(i, min(i + g * batch_size, full), g) for i in range(0, full, g * batch_size)]
        if full < len(lengths):
            groups.append((full, len(lengths), len(lengths) - full))
        for start, stop, blocks in groups:
            part = [lengths[i : i + blocks] for i in range(start, stop, blocks)]
            longest = max(max(clip) for clip in part)
            ids = rows[start:stop, :longest].unflatten(0, (-1, blocks))
            yield from self.decode_clips(ids, part).clamp(0, 1).cpu()

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
            tokens: tokens, or the path of a token file.
            original: at the video's own size, with black where the model saw nothing; False gives the model's square.
            any_model: decode tokens that another model wrote, as far as their shape fits.
            batch_size: clips computed at once.
            progress: called with the number of frames just finished.

        Returns:
            uint8 `[T, H, W, 3]`, at `tokens.info.fps` frames per second.

        Raises:
            TokenMismatchError: another model wrote the tokens.
            TokenFileError: the token file is damaged.
        """
        if not isinstance(tokens, VideoTokens):
            tokens = VideoTokens.load(tokens)
        parts = self.iter_decode(
            tokens, original=original, any_model=any_model, batch_size=batch_size, progress=progress
        )
        return np.concatenate(list(parts))

    def reconstruct(
        self, video: Video, budget: float | Sequence[float] | None = None, scope: Scope = "video", **options: Any
    ) -> tuple[Frames, VideoTokens]:
        """Encode and decode at once; arguments as for `encode`. Returns frames as `decode` does, and the tokens."""
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
        """For a live video: frames are pushed as they come, tokens come out once a block is full, and back.

        Args:
            budget: tokens per clip, that the running average follows; None keeps every latent.
            target: instead of a budget, the predicted distortion that a block may have.
            uniform: spend the budget evenly.
            fit: how frames come to the model's square.
        """
        policy = LengthPolicy(budget, "stream", target, uniform)
        policy.check(self.layout)
        if policy.needs_scores:
            self._scorer()
        return Streaming(self.model, policy, fit)

    def check_tokens(self, tokens: VideoTokens, *, any_model: bool = False) -> None:
        """Raise TokenMismatchError if these tokens are not of this model."""
        info, c = tokens.info, self.config.tokenizer
        theirs = (info.codebook_size, info.latents, info.block_frames, info.clip_blocks, info.size)
        ours = (c.quantizer.codebook_size, c.latents, c.temporal_patch_size, c.blocks, c.size)
        if theirs != ours:
            raise TokenMismatchError(
                f"the tokens are of the model {info.model!r}, whose codebook, latents, block, clip and size {theirs}"
                f" do not fit {self.config.name!r} {ours}; give the model that wrote them"
            )
        if info.model_hash != self.weights_hash and not any_model:
            raise TokenMismatchError(
                f"the tokens are of the model {info.model!r} with weights {info.model_hash[:12]}, this is"
                f" {self.config.name!r} with {self.weights_hash[:12]}; give that model, or insist with --any-model"
            )

    # Helpers.

    def _scorer(self) -> Scorer:
        if self.model.scorer is None:
            raise ValueError(
                f"the model {self.config.name!r} has no scorer; spend the budget uniformly, or use another"
            )
        return self.model.scorer

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

    def iter_clips(self, source: FrameSource, geometry: Geometry, batch: int) -> Iterator[tuple[Tensor, int]]:
        """Clips `[b, C, t, S, S]` of a whole video and the number of its frames in them; t is less than a clip's only
        in the last batch, which repeats the last frame up to a whole block."""
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

    def _encode_batches(
        self, source: FrameSource, geometry: Geometry, policy: LengthPolicy, batch: int, scored: bool
    ) -> Iterator[_Piece]:
        for clips, frames in self.iter_clips(source, geometry, batch):
            latents = self.encode_clips(clips)
            scores = lengths = None
            if policy.causal:
                chosen, found = self.choose_lengths(latents, partial(policy.batch_lengths, layout=self.layout))
                lengths, scores = chosen.reshape(-1), found.reshape(-1, found.shape[-1])
            elif scored:
                scores = self.score_clips(latents, normalized=False).flatten(0, 1).cpu().numpy()
            yield _Piece(frames, latents.ids.flatten(0, 1).cpu().numpy().astype(np.uint16), scores, lengths)

    @torch.no_grad()
    def choose_lengths(
        self, latents: EncodedClips, choose: Callable[[Scores, int], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], Scores]:
        """Lengths `[B, g]`, block index after block index, each scored given those before.

        Args:
            choose: lengths `[B]` of all clips from their scores (distortions) `[B, L]` and the index of the block.

        Returns:
            The lengths, and the scores `[B, g, L]` that they were chosen by.
        """
        scorer, k = self._scorer(), self.config.tokenizer.latents
        b, g, _ = latents.ids.shape
        cache = scorer.cache(b)
        lengths: list[list[int]] = [[] for _ in range(b)]
        found = []
        for i in range(g):
            now = latents.encoded[:, i : i + 1], latents.inputs[:, i : i + 1]
            full = [[*clip, k] for clip in lengths]
            raw = scorer.denormalize(scorer(*now, full, first_block=i, cache=cache, update_cache=False))[:, 0]
            scores = self._anchored(latents, raw, lengths).cpu().numpy()
            chosen = choose(scores, i)
            for clip, length in zip(lengths, chosen.tolist(), strict=True):
                clip.append(length)
            if i < g - 1:
                scorer.prefill(*now, lengths, first_block=i, cache=cache)
            found.append(scores)
        return np.array(lengths), np.stack(found, 1)

    def _anchored(
        self,
        latents: EncodedClips,
        scores: Tensor,
        earlier: Sequence[Sequence[int]],
        cache: BlockKVCache | None = None,
    ) -> Tensor:
        """Predicted distortions `[B, L]` of the block after those with lengths `earlier [B][i]`, corrected."""
        if latents.clips is None:
            return scores
        i, pt = len(earlier[0]), self.config.tokenizer.temporal_patch_size
        blocks, inputs = latents.clips[:, :, i * pt : (i + 1) * pt], latents.inputs[:, : i + 1]
        if all(list(row) == list(earlier[0]) for row in earlier):
            return calibrate_scores(self.model, scores, blocks, inputs, earlier[0], cache)
        rows = [
            calibrate_scores(self.model, scores[n : n + 1], blocks[n : n + 1], inputs[n : n + 1], row)
            for n, row in enumerate(earlier)
        ]
        return torch.cat(rows)

    def _encode_stream(self, source: FrameSource, geometry: Geometry, policy: LengthPolicy) -> Iterator[_Piece]:
        stream = Streaming(self.model, policy, geometry.fit)
        pushed = 0
        for frame in source.frames:
            pushed += 1
            for block in stream.push(frame):
                yield self._piece(block, pushed)
                pushed = 0
        for block in stream.flush():
            yield self._piece(block, pushed)

    def _piece(self, block: BlockTokens, frames: int) -> _Piece:
        row = np.zeros((1, self.config.tokenizer.latents), np.uint16)
        row[0, : len(block.ids)] = block.ids
        scores = None if block.scores is None else block.scores[None]
        return _Piece(frames, row, scores, np.array([len(block.ids)]))

    def _info(self, geometry: Geometry, frames: int, rate: Fraction) -> TokenInfo:
        c = self.config.tokenizer
        return TokenInfo(
            model=self.config.name,
            model_hash=self.weights_hash,
            codebook_size=c.quantizer.codebook_size,
            latents=c.latents,
            step=self.length_step,
            block_frames=c.temporal_patch_size,
            clip_blocks=c.blocks,
            frames=frames,
            rate=f"{rate.numerator}/{rate.denominator}",
            width=geometry.width,
            height=geometry.height,
            fit=geometry.fit,
            size=c.size,
        )


class _Piece(NamedTuple):
    """Result for some blocks.

    frames: of the video, without padding.
    ids: `[n, K]`, scores: `[n, L]`, lengths: `[n]` where they are already chosen.
    """

    frames: int
    ids: Ids
    scores: Scores | None
    lengths: NDArray[np.int64] | None


def info_geometry(info: TokenInfo) -> Geometry:
    """How the frames of a video came to the model's square."""
    return Geometry(info.fit, info.width, info.height, info.size)


def to_bytes(clip: Tensor) -> Frames:
    """`[C, T, H, W]` in [0, 1] to frames uint8 `[T, H, W, C]`."""
    return (clip.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).numpy()


def check_lengths(lengths: Sequence[Sequence[int]] | Tensor, clips: int, blocks: int, latents: int) -> list[list[int]]:
    """Lengths `[B, g]` as lists.

    Raises:
        ValueError: there are more or fewer of them, or one is not in 0..latents.
    """
    rows: list[list[int]] = torch.as_tensor(lengths).tolist()
    if len(rows) != clips or any(not isinstance(row, list) or len(row) != blocks for row in rows):
        raise ValueError(f"lengths of shape {tuple(torch.as_tensor(lengths).shape)}, expected ({clips}, {blocks})")
    for length in (length for row in rows for length in row):
        if not isinstance(length, int) or not 0 <= length <= latents:
            raise ValueError(f"length {length!r}, expected an integer from 0 to {latents}")
    return rows


def pick_device(name: str | torch.device) -> torch.device:
    """A torch device from its name; "auto" takes what is fastest here.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {name!r} is not available here; expected auto, cpu, cuda, cuda:N or mps") from None
    return device


def pick_dtype(name: str | torch.dtype) -> torch.dtype:
    """A floating-point type from its name.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r}, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]

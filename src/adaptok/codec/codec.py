"""AdapTok: encode videos into adaptive sequences of discrete tokens, and decode them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy
from adaptok.checkpoints.hub import HubOptions, local_folder
from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.codec.clips import ClipCodec
from adaptok.codec.encoded_windows import by_tile
from adaptok.codec.encoding import EncodingOptions, Progress, check_single, encode_videos, split_batch
from adaptok.codec.streaming import Streaming
from adaptok.codec.token_file import TokenMismatchError, VideoTokens
from adaptok.config.choices import DEFAULT_EFFORT, FitChoice, FrameOutput, Scope
from adaptok.utils.devices import pick_device, pick_dtype
from adaptok.video.frame_outputs import check_output, convert_frames
from adaptok.video.geometry import Geometry
from adaptok.video.limits import DEFAULT_LIMITS, Limits
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sources import Video
from adaptok.video.windows import CrossFade

Frames = NDArray[np.uint8]


class AdapTok(ClipCodec):
    """Encoder and decoder of videos. `AdapTok.from_pretrained()` loads the bundled model."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> AdapTok:
        """Load a model.

        Args:
            name: A model folder or an id `owner/name` or `owner/name@revision` of the Hugging Face hub, of this
                project's or the official layout. None loads the bundled model.
            device: A torch device. "auto" selects CUDA if available, else MPS, else the CPU.
            dtype: Type of weights and computation: "float32", "bfloat16" or "float16", one of the short names "fp32",
                "bf16" and "fp16", or a torch type.
            revision: Branch, tag or commit of a model on the hub. None is the main branch.
            token: Access token for private models of the hub. None uses the one that `hf auth login` or HF_TOKEN
                provides, if any.
            cache_dir: Folder of downloads. None is that of the hub's library (HF_HUB_CACHE).
            local_files_only: Use an earlier download, without a network.

        Raises:
            FileNotFoundError: There is no such folder, and no such model or revision on the hub.
            PermissionError: The hub refuses access to the model.
            ConnectionError: The hub cannot be reached, or fails.
            CheckpointError: The folder is damaged, or its weights do not fit its configuration.
            ValueError: `device` or `dtype` is unrecognized or unavailable, or a folder is given a revision.
        """
        torch_device, torch_dtype = pick_device(device), pick_dtype(dtype)
        options = HubOptions(revision, token, cache_dir, local_files_only)
        with local_folder(name, options=options) as folder:
            checkpoint = read_folder(folder)
            codec = cls(checkpoint.build().to(torch_device, torch_dtype), checkpoint.hash())
        codec.folder = None if name is None else folder
        return codec

    def save_pretrained(self, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> None:
        """Write a model folder of this project's layout.

        Args:
            folder: Folder to write; it is created if necessary.
            dtype: Type of the stored weights; None keeps the present one.
        """
        write_folder(self.model, folder, self.dtype if dtype is None else pick_dtype(dtype))

    def encode(
        self,
        video: Video,
        budget: float | Sequence[float] | None = None,
        scope: Scope = "video",
        *,
        target: float | None = None,
        uniform: bool = False,
        effort: int = DEFAULT_EFFORT,
        fit: FitChoice = "crop",
        short_side: int | None = None,
        tile_overlap: int | None = None,
        window_overlap: int = 0,
        batch_size: int = 4,
        keep_scores: bool = True,
        start: float = 0.0,
        stop: float | None = None,
        fps: Fraction | float | None = None,
        allow_url: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> VideoTokens:
        """Encode a video of any length and size.

        Args:
            video: The path of a video file, a GIF or a folder of frames; an array or tensor, uint8 or float in [0, 1],
                `[T, H, W, 3]`, `[T, 3, H, W]` or `[1, 3, T, H, W]`; a list of PIL images; or a decoder such as
                torchcodec's `VideoDecoder`. See `adaptok.video.sources.open_frames`. `encode_batch` encodes several.
            budget, scope, target, uniform, effort: How lengths are chosen; see `LengthPolicy`. Without a budget or
                target, every token is kept.
            fit: How frames are fitted to the square of the model. The default, "crop", keeps the central square and
                drops the rest of the frame, unlike `adaptok encode`, whose default is "auto". "pad" adds black bars,
                "stretch" changes the aspect ratio, "tile" covers the whole frame with overlapping squares, each a
                clip of its own, and "auto" is "tile" unless the frame is square.
            short_side, tile_overlap: Shorter side that frames are resized to, and smallest overlap of neighbouring
                tiles, in pixels, with the fit "tile"; see `Geometry`.
            window_overlap: Number of frames that clips share with the next, up to half of a clip. Decoding cross-fades
                them, which smooths the transition.
            batch_size: Clips computed at once. Only results of the scope "batch" depend on it.
            keep_scores: Keep predicted distortions, which `VideoTokens.truncate` needs.
            start, stop: Part of the video to encode, in seconds.
            fps: Frames per second: the rate to sample a file or decoder at, or that of arrays and images (default: 30).
            allow_url: Download the video if it is given as an `http://` or `https://` URL.
            limits: Largest frames and longest part of a file that are read.
            progress: Called with the number of frames that have just been processed.

        Raises:
            ValueError: An argument is out of range, or the model lacks the scorer that the policy needs.
            VideoError: The file cannot be read, or exceeds the limits.
        """
        check_single(video)
        options = EncodingOptions(
            fit, short_side, tile_overlap, window_overlap, batch_size, keep_scores, start, stop, fps, allow_url, limits
        )
        policy = LengthPolicy(budget, scope, target, uniform, effort)
        [tokens] = encode_videos(self, [video], policy, options, progress)
        return tokens

    def encode_batch(
        self,
        videos: Sequence[Video] | NDArray[Any] | Tensor,
        budget: float | Sequence[float] | None = None,
        scope: Scope = "video",
        *,
        target: float | None = None,
        uniform: bool = False,
        effort: int = DEFAULT_EFFORT,
        fit: FitChoice = "crop",
        short_side: int | None = None,
        tile_overlap: int | None = None,
        window_overlap: int = 0,
        batch_size: int = 4,
        keep_scores: bool = True,
        start: float = 0.0,
        stop: float | None = None,
        fps: Fraction | float | None = None,
        allow_url: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> list[VideoTokens]:
        """Encode separate videos, each as `encode` does: each has a budget of its own, and does not affect the others.

        Clips of several videos are computed together, which is faster for short videos.

        Args:
            videos: A list of videos, each as for `encode`; or an array or tensor of videos of equal shape, float
                `[B, 3, T, H, W]` in [0, 1] or uint8 `[B, T, H, W, 3]`.
            budget, scope, target, uniform, effort: As for `encode`. With the scope "batch", each video has batches of
                its own.
            fit, short_side, tile_overlap, window_overlap, batch_size, keep_scores: As for `encode`.
            start, stop, fps, allow_url, limits: As for `encode`, in each video.
            progress: Called with the number of frames that have just been processed, over all videos.

        Returns:
            The tokens of each video, in the order of the videos.

        Raises:
            ValueError: An argument is out of range, or the model lacks the scorer that the policy needs.
            VideoError: A file cannot be read. There is no result for the other videos either.
        """
        options = EncodingOptions(
            fit, short_side, tile_overlap, window_overlap, batch_size, keep_scores, start, stop, fps, allow_url, limits
        )
        policy = LengthPolicy(budget, scope, target, uniform, effort)
        return encode_videos(self, split_batch(videos), policy, options, progress)

    def iter_decode(
        self,
        tokens: VideoTokens,
        *,
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Iterator[Frames]:
        """Decode a video clip by clip: frames uint8 `[t, H, W, 3]`. Arguments and errors as for `decode`."""
        self.check_tokens(tokens, any_model=any_model)
        tokens.info.check_limits(limits, original)
        geometry = tokens.info.geometry
        left = tokens.info.frames
        for clip in self.iter_decode_clips(tokens, batch_size=batch_size):
            clip = clip[:, :left]
            yield geometry.invert(clip) if original else clip_to_frames(clip)
            left -= clip.shape[1]
            if progress is not None:
                progress(clip.shape[1])

    def iter_decode_clips(self, tokens: VideoTokens, *, batch_size: int = 4) -> Iterator[Tensor]:
        """Decode clips float32 `[C, t, h, w]` in [0, 1] one by one, at the scale of the model.

        The last one includes its padding. Tiles are blended. Clips that overlap in time are cross-faded, and each is
        returned without the frames that the next one shares.
        """
        info, g = tokens.info, self.config.tokenizer.blocks
        tiles, geometry, fade = info.tiles, info.geometry, CrossFade(info.window_overlap)
        lengths = torch.from_numpy(tokens.lengths)
        count = info.tile_blocks
        full = count // g * g
        step = g * max(1, batch_size // tiles)
        edges = sorted({*range(0, full, step), full, count})  # the last clip may have fewer blocks
        for first, stop in pairwise(edges):
            blocks, rows = min(g, stop - first), slice(first * tiles, stop * tiles)
            values = torch.from_numpy(tokens.padded(part=rows)), lengths[rows]
            batches = (by_tile(each, blocks, tiles).split(batch_size) for each in values)
            decoded = [
                self.decode_clips(clip_ids[..., : int(kept.max())], kept).clamp(0, 1).cpu()
                for clip_ids, kept in zip(*batches, strict=True)
            ]
            windows = torch.cat(decoded).unflatten(0, (-1, tiles))  # [b, n, C, t, S, S]
            for index, window in enumerate(windows):
                last = stop == count and index == len(windows) - 1
                yield fade.push(geometry.merge(window), last=last)

    @overload
    def decode(
        self,
        tokens: VideoTokens | str | Path,
        *,
        output: Literal["numpy"] = "numpy",
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Frames: ...
    @overload
    def decode(
        self,
        tokens: VideoTokens | str | Path,
        *,
        output: Literal["torch"],
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Tensor: ...
    @overload
    def decode(
        self,
        tokens: VideoTokens | str | Path,
        *,
        output: Literal["pil"],
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> list[Image]: ...
    @overload
    def decode(
        self,
        tokens: VideoTokens | str | Path,
        *,
        output: FrameOutput,
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Frames | Tensor | list[Image]: ...
    def decode(
        self,
        tokens: VideoTokens | str | Path,
        *,
        output: FrameOutput = "numpy",
        original: bool = True,
        any_model: bool = False,
        batch_size: int = 4,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
    ) -> Frames | Tensor | list[Image]:
        """Decode a whole video into memory.

        Args:
            tokens: Tokens, or the path of a token file.
            output: Type of the frames, "numpy", "torch" or "pil"; see below.
            original: Return frames of the video's own size, black where the model saw nothing. False returns the square
                of the model, or with tiles the whole frame at the model's scale.
            any_model: Decode tokens that another model wrote, if their layout fits.
            batch_size: Clips computed at once.
            limits: Largest frames and longest video that are decoded.
            progress: Called with the number of frames that have just been processed.

        Returns:
            Frames, at `tokens.info.fps` frames per second: an array uint8 `[T, H, W, 3]`; with "torch" a tensor uint8
            `[T, 3, H, W]` on the CPU, the layout of torchcodec and torchvision; with "pil" a list of images.

        Raises:
            TokenMismatchError: Another model wrote the tokens.
            TokenFileError: The token file is damaged.
            ValueError: `output` is unrecognized.
            VideoError: The tokens state a size or a duration beyond the limits.
        """
        check_output(output)
        if not isinstance(tokens, VideoTokens):
            tokens = VideoTokens.load(tokens)
        clips = self.iter_decode(
            tokens, original=original, any_model=any_model, batch_size=batch_size, limits=limits, progress=progress
        )
        return convert_frames(np.concatenate(list(clips)), output)

    def shorten(self, tokens: VideoTokens, policy: LengthPolicy) -> VideoTokens:
        """Shorten tokens that were encoded without a budget by a policy of the scope "video" or "clip"."""
        return tokens.shorten(policy.lengths(tokens.scores, len(tokens.lengths), self.layout, tokens.info.tiles))

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
        fit: FitChoice = "crop",
        short_side: int | None = None,
        tile_overlap: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> Streaming:
        """Begin a streaming session, for live video.

        Args:
            budget: Tokens per clip that the running average follows. None keeps every token.
            target: Largest predicted distortion of a block, as an alternative to a budget.
            uniform: Distribute the budget evenly.
            fit, short_side, tile_overlap: How frames are fitted to the square of the model; see `encode`. The default
                keeps the central square only.
            frame_size: Width and height of frames, in pixels. By default, the first frame that is pushed determines
                it. A session that only receives needs it to decode tiles, and to return frames of that size.

        Raises:
            ValueError: An argument is out of range, or the model lacks the scorer that the policy needs.
        """
        policy = LengthPolicy(budget, "stream", target, uniform)
        self.check_policy(policy)
        choose = partial(
            Geometry.choose, fit, size=self.config.tokenizer.size, short_side=short_side, tile_overlap=tile_overlap
        )
        choose(64, 48)  # checks the arguments
        return Streaming(self.model, policy, choose if frame_size is None else choose(*frame_size))

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

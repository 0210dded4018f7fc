"""Generator of new clips from classes or first frames.

Legend: `B` clips, `n` entries of a sequence, `G` blocks of a clip, `K` latents of a block, `V` vocabulary, `F` frames,
`C` channels, `T` frames of a clip, `S` pixels of a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.checkpoints.hub import HubOptions, local_folder
from adaptok.checkpoints.model_folder import read_generator, write_folder, write_official_folder
from adaptok.checkpoints.pretrained import Pretrained
from adaptok.codec.codec import AdapTok
from adaptok.config.choices import Fit, ModelLayout, WeightFormat
from adaptok.config.generator import GeneratorConfig
from adaptok.generation.compatibility import check_compatible, is_compatible
from adaptok.generation.conditions import Label, class_number, encode_conditions, read_first_frames
from adaptok.generation.sampling import Sampler, Samples, Sampling, SamplingStats, draw_seeds
from adaptok.generation.sequences import split_blocks
from adaptok.generation.weights import check_weights, move_model
from adaptok.models.generator import GeneratorModel
from adaptok.utils.devices import pick_device, pick_dtype
from adaptok.video.geometry import Geometry
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sources import Video

BUNDLED = "adaptok-tiny-generator"
"""Name of the bundled generator."""
DEFAULT_CONDITION_FRAMES = 5
"""Number of first frames in the condition of a generator that does not state it. The number is the official one."""
Progress = Callable[[int], None]


class Generator(Pretrained):
    """Autoregressive model over the ids of a tokenizer. `Generator.from_pretrained()` loads the bundled one.

    `sample` generates the tokens of new clips, `decode` converts them to pixels, and `predict` continues a video. A
    call computes the logits of given ids.

    Args:
        model: model, which is switched to evaluation mode.
        codec: tokenizer whose ids the model writes. Without it, `decode` and `predict` are unavailable.
        compile: compile the decode step; see `from_pretrained`.

    Raises:
        GeneratorMismatchError: the model was trained on the ids of another tokenizer.
    """

    model: GeneratorModel

    def __init__(self, model: GeneratorModel, codec: AdapTok | None = None, *, compile: bool = False) -> None:
        self.model, self.compile = model.eval(), compile
        self.codec = codec
        self.weights: WeightFormat = "float"  # of linear layers
        self._prepacks = False
        self.stats = SamplingStats(0, 0, 0)
        """Counts of the last sampling."""
        if codec is not None:
            check_compatible(model.config, codec)

    def __repr__(self) -> str:
        c = self.config
        condition = f"{c.classes} classes" if c.classes else f"prediction from {self.condition_frames} frames"
        return self._describe(
            condition,
            f"{c.blocks} blocks of up to {c.latents} tokens",
            f"codec={None if self.codec is None else self.codec.config.name!r}",
            *([] if self.weights == "float" else [f"weights={self.weights}"]),
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        codec: AdapTok | str | Path | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
        weights: WeightFormat = "float",
        compile: bool = False,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Generator:
        """Load a generator for sampling.

        Args:
            name: folder or Hugging Face hub id (owner/name or owner/name@revision) of a generator in our layout or the
                official one. None is the bundled generator.
            codec: tokenizer, or its folder or hub id. None is the bundled model, if the generator was trained on it.
            device, dtype: as for `AdapTok.from_pretrained`. A tokenizer that is loaded by name computes in float32.
            weights: "int8" rounds the weights of linear layers to 8 bits, for faster sampling with less memory on a CPU
                without `compile`. The clips of a seed differ from those of "float". The generator cannot be saved.
            compile: compile the decode step (`torch.compile`, with CUDA graphs on a GPU). The first clips wait up to a
                minute, and many clips are faster. Rounding differs, so the clips of a seed may differ from those of a
                plain step and between batch sizes.
            revision: as for `AdapTok.from_pretrained`, of the generator alone.
            token, cache_dir, local_files_only: as for `AdapTok.from_pretrained`, also for a tokenizer on the hub.

        Raises:
            GeneratorMismatchError: the generator was trained on the ids of another tokenizer.
            ValueError: `weights` is unknown, or int8 weights are combined with `compile` or a device other than a CPU.
            FileNotFoundError: there is no such model. The other errors are those of `AdapTok.from_pretrained`.
        """
        where, kind = pick_device(device), pick_dtype(dtype)
        check_weights(weights, where, compile)
        with local_folder(name, BUNDLED, HubOptions(revision, token, cache_dir, local_files_only)) as folder:
            model = read_generator(folder, kind)
        if isinstance(codec, AdapTok):
            tokenizer: AdapTok | None = codec
        else:
            tokenizer = AdapTok.from_pretrained(
                codec, device=where, token=token, cache_dir=cache_dir, local_files_only=local_files_only
            )
            if codec is None and not is_compatible(model.config, tokenizer):
                tokenizer = None
        generator = cls(model, tokenizer, compile=compile)
        generator.folder, generator.weights = None if name is None else folder, weights
        generator._prepacks = not compile
        generator._move_model(where, kind)
        return generator

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the generator, and its tokenizer without changing the type of that."""
        self._move_model(device, dtype)
        if self.codec is not None:
            self.codec.to(device)

    def _move_model(self, device: torch.device, dtype: torch.dtype) -> None:
        check_weights(self.weights, device, self.compile)
        move_model(self.model, device, dtype, self.weights, self._prepacks)

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | torch.dtype | None = None, layout: ModelLayout = "adaptok"
    ) -> None:
        """Write a generator folder.

        Args:
            folder: folder to write.
            dtype: type of the stored weights. None is that of the model.
            layout: ours, or the official one.

        Raises:
            ValueError: the weights are int8.
        """
        write = write_official_folder if layout == "official" else write_folder
        write(self.model, folder, self.model.dtype if dtype is None else pick_dtype(dtype))

    @property
    def config(self) -> GeneratorConfig:
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.model.dtype

    @property
    def condition_frames(self) -> int:
        """Number of first frames in the condition of a prediction; 0 for a generator of classes."""
        if not self.config.condition_ids:
            return 0
        return self.config.condition_frames or DEFAULT_CONDITION_FRAMES

    @property
    def clip_frames(self) -> int:
        """Number of frames of a clip."""
        return self.check_codec().config.tokenizer.frames

    @torch.inference_mode()
    def __call__(self, ids: Tensor, condition: Tensor) -> Tensor:
        """Compute the logits of the first entry of a sequence and of the entry after each one given.

        Args:
            ids: entries `[B, n]`: ids, and end-of-block tokens, which are the last of the vocabulary.
            condition: classes `[B]`, or ids of the first frames `[B, condition_ids]`.

        Returns:
            float32 `[B, n + 1, V]`.

        Raises:
            ValueError: shapes or values do not fit the model.
        """
        logits: Tensor = self.model(ids.to(self.device), condition.to(self.device))
        return logits

    def classes(self, labels: Sequence[Label]) -> Tensor:
        """Convert names or numbers of classes to int64 `[B]`.

        Raises:
            ValueError: a label is unknown, or this generator has no classes.
        """
        return torch.tensor([class_number(self.config, label) for label in labels], dtype=torch.int64)

    def iter_sample(
        self,
        labels: Sequence[Label] | Tensor | None = None,
        condition_ids: Tensor | None = None,
        *,
        settings: Sampling | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 8,
        progress: Progress | None = None,
        step_progress: Progress | None = None,
    ) -> Iterator[tuple[int, Samples]]:
        """Generate clips, and yield the index and the tokens of each one as it is completed.

        Args:
            settings: settings of the draw. None draws from the distribution of the model.
            labels, condition_ids, seeds, generator, batch_size, progress: as for `sample`.
            step_progress: called after every decode step with the number of tokens just drawn.
        """
        conditions = self._conditions(labels, condition_ids)
        rules = Sampling() if settings is None else settings
        sampler = Sampler(self.model, rules, batch_size, compile=self.compile, progress=step_progress)
        for index, sequence in sampler.sequences(conditions, draw_seeds(len(conditions), seeds, generator)):
            self.stats = sampler.stats
            if progress is not None:
                progress(1)
            yield index, self._samples(sequence, conditions[index])

    def sample(
        self,
        labels: Sequence[Label] | Tensor | None = None,
        condition_ids: Tensor | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        cfg_scale: float = 1.0,
        cfg_interval: tuple[int, int] | None = None,
        budget: int | None = None,
        min_length: int = 0,
        max_length: int | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 8,
        progress: Progress | None = None,
    ) -> Samples:
        """Generate the tokens of new clips.

        Args:
            labels: class of each clip, by name or number.
            condition_ids: ids of the first frames `[B, condition_ids]`, for frame prediction instead of classes.
            temperature, top_k, top_p, cfg_scale, cfg_interval, budget, min_length, max_length: see `Sampling`.
            seeds: seed of each clip. The same seed gives the same clip in every batch.
            generator: random state from which seeds are drawn if none are given. None is that of torch.
            batch_size: maximum number of clips at a time.
            progress: called with the number of clips just completed.

        Returns:
            ids int64 `[B, G, K]` and lengths int64 `[B, G]`. Blocks that the condition holds completely are copied from
            it.

        Raises:
            ValueError: a label is unknown, or a value is out of range.
        """
        settings = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            cfg_scale=cfg_scale,
            cfg_interval=cfg_interval,
            budget=budget,
            min_length=min_length,
            max_length=max_length,
        )
        clips = dict(
            self.iter_sample(
                labels,
                condition_ids,
                settings=settings,
                seeds=seeds,
                generator=generator,
                batch_size=batch_size,
                progress=progress,
            )
        )
        ids, lengths = zip(*(clips[index] for index in range(len(clips))), strict=True)
        return Samples(torch.cat(ids), torch.cat(lengths))

    def _conditions(self, labels: Sequence[Label] | Tensor | None, condition_ids: Tensor | None) -> Tensor:
        if (labels is None) == (condition_ids is None):
            raise ValueError("give either labels or condition_ids, and not both")
        if labels is not None:
            conditions = self.classes(labels.tolist() if isinstance(labels, Tensor) else labels)
        else:
            assert condition_ids is not None
            conditions = condition_ids
        if len(conditions) == 0:
            raise ValueError("no labels or conditions to sample; give one or more")
        self.model.check_condition(conditions)
        return conditions

    def _samples(self, sequence: Sequence[int], condition: Tensor) -> Samples:
        """Convert a sequence to the tokens of one clip, after the blocks of its condition."""
        c = self.config
        ids, lengths = map(torch.from_numpy, split_blocks(sequence, c.blocks, c.latents, c.eob))
        if c.first_block:
            known = condition[: c.first_block * c.latents].cpu().view(c.first_block, c.latents)
            ids, lengths = torch.cat([known, ids]), torch.cat([torch.full((c.first_block,), c.latents), lengths])
        return Samples(ids[None], lengths[None])

    def decode(self, samples: Samples) -> Tensor:
        """Decode clips to float32 `[B, C, T, S, S]` in [0, 1]."""
        codec = self.check_codec()
        longest = max(1, int(samples.lengths.max()))
        return codec.decode_clips(samples.ids[..., :longest], samples.lengths).clamp(0, 1)

    def condition(self, frames: NDArray[Any], fit: Fit = "crop") -> Tensor:
        """Encode first frames `[F, height, width, 3]` as a condition `[1, condition_ids]`, with all tokens.

        The last frame is repeated to fill its block.

        Raises:
            ValueError: there are fewer frames than the condition needs, or more than its blocks hold.
        """
        codec = self.check_codec()
        clip = Geometry(fit, frames.shape[2], frames.shape[1], codec.config.tokenizer.size).apply(frames)
        return encode_conditions(self.config, codec, clip[None])

    def predict(
        self,
        video: Video,
        cond_frames: int | None = None,
        *,
        frames: int | None = None,
        start: float = 0.0,
        fps: Fraction | float | None = None,
        fit: Fit = "crop",
        settings: Sampling | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> NDArray[np.uint8]:
        """Continue a video from its first frames.

        Args:
            video: path, frames uint8 `[T, height, width, 3]`, or clips float `[B, 3, T, height, width]` in [0, 1].
            cond_frames: number of first frames in the condition. None is the number of the training.
            frames: number of frames of the result, including the condition. None is the length of a clip. Longer
                results are generated clip by clip, each conditioned on the last frames of the one before.
            start: time of the first frame in seconds.
            fps: frames per second at which the video is sampled. None is its own rate.
            fit: how frames are fitted to a square.
            settings: settings of the draw. None draws from the distribution of the model.
            seed: seed of the prediction.
            progress: called with the number of frames just generated.

        Returns:
            uint8 `[frames, S, S, 3]`: the condition as the tokenizer reconstructs it, and the prediction.

        Raises:
            ValueError: the video is shorter than the condition, or the generator predicts no frames.
        """
        if not self.config.condition_ids:
            raise ValueError("this generator makes classes and predicts no frames; sample it with labels")
        count = self.condition_frames if cond_frames is None else cond_frames
        total = self.clip_frames if frames is None else frames
        if total <= count:
            raise ValueError(f"{total} frames with a condition of {count}, expected more frames than the condition has")
        first = read_first_frames(video, count, start=start, fps=fps)
        pieces: list[NDArray[np.uint8]] = []
        done = 0
        while done < total:
            condition = self.condition(first, fit)  # generated frames are square already
            clip_seed = np.random.SeedSequence((seed, len(pieces))).generate_state(1)[0]
            [(_, samples)] = self.iter_sample(
                condition_ids=condition, settings=settings, seeds=[int(clip_seed)], batch_size=1
            )
            clip = clip_to_frames(self.decode(samples)[0].cpu())
            pieces.append(clip[count:] if pieces else clip)
            if progress is not None:
                progress(min(len(pieces[-1]), total - done))
            done += len(pieces[-1])
            first = clip[-count:]
        return np.concatenate(pieces)[:total]

    def check_codec(self) -> AdapTok:
        """Return the tokenizer.

        Raises:
            ValueError: the generator was loaded without one.
        """
        if self.codec is None:
            raise ValueError(
                f"the generator {self.config.name!r} was loaded without its tokenizer"
                f" ({self.config.model or 'of unknown name'}); give it with --model, or as codec"
            )
        return self.codec

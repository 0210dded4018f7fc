"""The generator as a user holds it: classes or first frames in, tokens of new video out.

Legend: `B` clips, `n` entries of a row, `G` blocks of a clip, `g` of them written, `K` latents of a block, `V` entries
of the vocabulary.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.checkpoints.hub import local_folder
from adaptok.checkpoints.model_folder import read_generator, write_folder, write_official_generator
from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.generation.rows import read_row
from adaptok.generation.sampling import Sampler, Samples, Sampling, Work
from adaptok.models.generator import GeneratorModel
from adaptok.ops.prepacked_linear import prepack_linears
from adaptok.utils.devices import pick_device, pick_dtype
from adaptok.video.geometry import Fit, Geometry
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sources import Video, open_frames

BUNDLED = "adaptok-tiny-generator"
"""The generator in the box, under `assets/`."""
DEFAULT_CONDITION_FRAMES = 5
"""Of frame prediction, where a generator does not say: the official number."""
Label = str | int
Layout = Literal["adaptok", "official"]
Progress = Callable[[int], None]


class GeneratorMismatchError(ValueError):
    """A generator and a tokenizer that do not belong together, told in one line."""


class Generator:
    """Autoregressive model over a tokenizer's ids. `Generator.from_pretrained()` gives the one in the box.

    Called with ids it gives logits; `sample` gives tokens of new clips, `predict` goes on with a video.

    Args:
        model: it is put into evaluation mode.
        codec: the tokenizer whose ids it writes; without one only `predict` and `decode` are missing.
        compile: see `from_pretrained`.

    Raises:
        GeneratorMismatchError: the two do not belong together.
    """

    def __init__(self, model: GeneratorModel, codec: AdapTok | None = None, *, compile: bool = False) -> None:
        self.model, self.compile = model.eval(), compile
        self.codec = codec
        self.work = Work(0, 0, 0)
        """Of the last sampling."""
        if codec is not None:
            check_pair(model.config, codec)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        codec: AdapTok | str | Path | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
        compile: bool = False,
    ) -> Generator:
        """Load a generator for sampling.

        Args:
            name: a folder, or a hub id `owner/name`, of our layout or the official one; None is the one in the box.
            codec: its tokenizer, or the name of one; None takes the one in the box, where the generator is of that.
            device, dtype: as for `AdapTok.from_pretrained`; a codec that is named is loaded as float32.
            compile: compile the step of sampling (`torch.compile`, CUDA graphs on a GPU): the first clips wait up to a
                minute, many clips are faster. It rounds in its own way: clips of a seed may differ from those of a
                plain step, and, on a CPU too, between batch sizes.

        Raises:
            FileNotFoundError: there is no such folder.
            CheckpointError: the folder is damaged, or its weights do not fit its configuration.
            GeneratorMismatchError: generator and tokenizer do not belong together.
            ValueError: device or dtype is unknown, or not to be had.
        """
        where, kind = pick_device(device), pick_dtype(dtype)
        with local_folder(name, BUNDLED) as folder:
            model = read_generator(folder, kind).to(where)
        if not compile:
            prepack_linears(model)
        if codec is None:
            bundled = AdapTok.from_pretrained(device=where)
            return cls(model, bundled if belongs(model.config, bundled) else None, compile=compile)
        named = codec if isinstance(codec, AdapTok) else AdapTok.from_pretrained(codec, device=where)
        return cls(model, named, compile=compile)

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | torch.dtype | None = None, layout: Layout = "adaptok"
    ) -> None:
        """Write a folder of our layout, or of the official one; `dtype` is that of the stored weights."""
        write = write_official_generator if layout == "official" else write_folder
        write(self.model, folder, self.model.dtype if dtype is None else pick_dtype(dtype))

    @property
    def config(self) -> GeneratorConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def condition_frames(self) -> int:
        """First frames that a prediction needs; 0 for a generator of classes."""
        if not self.config.condition_ids:
            return 0
        return self.config.condition_frames or DEFAULT_CONDITION_FRAMES

    @property
    def clip_frames(self) -> int:
        """T, frames of a clip."""
        return self.check_codec().config.tokenizer.frames

    @torch.inference_mode()
    def __call__(self, ids: Tensor, condition: Tensor) -> Tensor:
        """Logits float32 `[B, n + 1, V]`: of the first entry of a row, and of the one after each of `ids [B, n]`.

        Args:
            ids: entries of rows, end-of-block marks (the last entry of the vocabulary) among them.
            condition: classes `[B]`, or ids of first frames `[B, condition_ids]`.

        Raises:
            ValueError: shapes or values do not fit.
        """
        logits: Tensor = self.model(ids.to(self.device), condition.to(self.device))
        return logits

    def classes(self, labels: Sequence[Label]) -> Tensor:
        """int64 `[B]`: classes from their names or numbers.

        Raises:
            ValueError: a label is unknown, with the nearest names; or this generator has no classes.
        """
        c = self.config
        if not c.classes:
            raise ValueError("this generator predicts frames and has no classes; give first frames instead of labels")
        return torch.tensor([self._class(label) for label in labels], dtype=torch.int64)

    def _class(self, label: Label) -> int:
        c = self.config
        if str(label) in c.labels:
            return c.labels.index(str(label))
        if isinstance(label, int) or label.isdecimal():
            if int(label) < c.classes:
                return int(label)
            raise ValueError(f"label {label}, expected 0 to {c.classes - 1}")
        near = difflib.get_close_matches(label, c.labels, n=3, cutoff=0.3) or list(c.labels[:5])
        told = f"did you mean {', '.join(map(repr, near))}?" if near else f"expected a number from 0 to {c.classes - 1}"
        raise ValueError(f"unknown label {label!r}: {told}")

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
    ) -> Iterator[tuple[int, Samples]]:
        """Clips as they are finished: their index, and ids `[1, G, K]` with lengths `[1, G]`; see `sample`."""
        conditions = self._conditions(labels, condition_ids)
        rules = Sampling() if settings is None else settings
        sampler = Sampler(self.model, rules, batch_size, compile=self.compile)
        for index, row in sampler.rows(conditions, _seeds(len(conditions), seeds, generator)):
            self.work = sampler.work
            if progress is not None:
                progress(1)
            yield index, self._clip(row, conditions[index])

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
        least: int = 0,
        most: int | None = None,
        seeds: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 8,
        progress: Progress | None = None,
    ) -> Samples:
        """Tokens of new clips.

        Args:
            labels: a class for each clip, by name or number.
            condition_ids: instead, the ids of first frames `[B, condition_ids]`, for frame prediction.
            temperature, top_k, top_p, cfg_scale, cfg_interval, budget, least, most: see `Sampling`.
            seeds: of each clip; a clip is the same with the same seed, whatever is sampled beside it.
            generator: that seeds are drawn from, where none are given; torch's own state if None.
            batch_size: clips at a time.
            progress: called with the number of clips just finished.

        Returns:
            ids int64 `[B, G, K]`, 0 where a block has none, and lengths int64 `[B, G]`. Blocks that a condition holds
            whole are those of the condition.

        Raises:
            ValueError: a label is unknown, or another value is out of its range.
        """
        settings = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            cfg_scale=cfg_scale,
            cfg_interval=cfg_interval,
            budget=budget,
            least=least,
            most=most,
        )
        found = dict(
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
        clips = [found[index] for index in range(len(found))]
        return Samples(torch.cat([clip.ids for clip in clips]), torch.cat([clip.lengths for clip in clips]))

    def _conditions(self, labels: Sequence[Label] | Tensor | None, condition_ids: Tensor | None) -> Tensor:
        if (labels is None) == (condition_ids is None):
            raise ValueError("give either labels or condition_ids")
        if labels is not None:
            conditions = self.classes(labels.tolist() if isinstance(labels, Tensor) else labels)
        else:
            assert condition_ids is not None
            conditions = condition_ids
        if len(conditions) == 0:
            raise ValueError("nothing to sample: there is no label and no condition; give one or more")
        self.model.check_condition(conditions)
        return conditions

    def _clip(self, row: Sequence[int], condition: Tensor) -> Samples:
        """A written row with the blocks of its condition before it."""
        c = self.config
        ids, lengths = (torch.from_numpy(part) for part in read_row(row, c.blocks, c.latents, c.eob))
        if c.first_block:
            known = condition[: c.first_block * c.latents].cpu().view(c.first_block, c.latents)
            ids, lengths = torch.cat([known, ids]), torch.cat([torch.full((c.first_block,), c.latents), lengths])
        return Samples(ids[None], lengths[None])

    # Video.

    def decode(self, samples: Samples) -> Tensor:
        """Clips float32 `[B, C, T, S, S]` in [0, 1]."""
        codec = self.check_codec()
        longest = max(1, int(samples.lengths.max()))
        return codec.decode_clips(samples.ids[..., :longest], samples.lengths).clamp(0, 1)

    def condition(self, frames: NDArray[Any], fit: Fit = "crop") -> Tensor:
        """Ids `[1, condition_ids]` of first frames `[F, H, W, 3]`, all kept; the last frame fills up its block.

        Raises:
            ValueError: there are fewer frames than the condition needs, or more than its blocks have.
        """
        codec, c = self.check_codec(), self.config
        pt = codec.config.tokenizer.temporal_patch_size
        blocks = c.condition_ids // c.latents
        least, most = max(c.first_block * pt, (blocks - 1) * pt + 1), blocks * pt
        if not least <= len(frames) <= most:
            raise ValueError(f"{len(frames)} first frames, expected {least} to {most} for the condition")
        clip = Geometry(fit, frames.shape[2], frames.shape[1], codec.config.tokenizer.size).apply(frames)
        missing = blocks * pt - clip.shape[1]
        padded = torch.cat([clip, clip[:, -1:].expand(-1, missing, -1, -1)], 1)
        return codec.encode_clips(padded[None]).ids.flatten(1).cpu()

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
        """Go on with a video from its first frames.

        Args:
            video: a path, frames uint8 `[T, H, W, 3]`, or clips float `[B, 3, T, H, W]`.
            cond_frames: frames that are looked at; as the generator was trained if None.
            frames: of the result, the condition's included; a clip's if None. More are rolled forward: the last
                frames that were made are the condition of the next clip.
            start: second of the video to start at.
            fps: frames per second to sample it at.
            seed: of the clip.
            progress: called with the number of frames just made.

        Returns:
            uint8 `[frames, S, S, 3]`: the condition as the tokenizer gives it back, then what was made.

        Raises:
            ValueError: the video is shorter than the condition, or the generator predicts no frames.
        """
        if not self.config.condition_ids:
            raise ValueError("this generator makes classes and predicts no frames; sample it with labels")
        count = self.condition_frames if cond_frames is None else cond_frames
        wanted = self.clip_frames if frames is None else frames
        if wanted <= count:
            raise ValueError(f"{wanted} frames with a condition of {count}, expected more than that")
        now = first_frames(video, count, start=start, fps=fps)
        made: list[NDArray[np.uint8]] = []
        total = 0
        while total < wanted:
            condition = self.condition(now, fit)  # what was made is square already
            clip_seed = np.random.SeedSequence((seed, len(made))).generate_state(1)[0]
            [(_, samples)] = self.iter_sample(
                condition_ids=condition, settings=settings, seeds=[int(clip_seed)], batch_size=1
            )
            clip = clip_to_frames(self.decode(samples)[0].cpu())
            new = clip if not made else clip[count:]
            made.append(new)
            total += len(new)
            if progress is not None:
                progress(min(len(new), len(new) - (total - wanted)))
            now = clip[-count:]
        return np.concatenate(made)[:wanted]

    def check_codec(self) -> AdapTok:
        """The tokenizer, for video.

        Raises:
            ValueError: the generator was loaded without one.
        """
        if self.codec is None:
            raise ValueError(
                f"the tokenizer of the generator {self.config.name!r} is needed"
                f" ({self.config.model or 'the one it was trained with'}); give it with --model, or as codec"
            )
        return self.codec


def first_frames(video: Video, count: int, *, start: float = 0.0, fps: Fraction | float | None = None) -> NDArray[Any]:
    """The first frames `[count, H, W, 3]` of a video.

    Raises:
        ValueError: it has fewer.
    """
    frames: list[NDArray[Any]] = []
    with open_frames(video, start=start, fps=fps) as source:
        for frame in source.frames:
            frames.append(frame)
            if len(frames) == count:
                return np.stack(frames)
    raise ValueError(f"a video of {len(frames)} frames, the condition needs {count}; give a longer one")


def belongs(config: GeneratorConfig, codec: AdapTok) -> bool:
    """Whether a generator writes a tokenizer's ids."""
    try:
        check_pair(config, codec)
    except GeneratorMismatchError:
        return False
    return True


def check_pair(config: GeneratorConfig, codec: AdapTok) -> None:
    """Raise GeneratorMismatchError unless a generator writes this tokenizer's ids."""
    c = codec.config.tokenizer
    theirs = (config.codebook_size, config.latents, config.first_block + config.blocks)
    ours = (c.quantizer.codebook_size, c.latents, c.blocks)
    named = f"the generator {config.name!r}"
    if theirs != ours:
        raise GeneratorMismatchError(
            f"{named} writes ids, latents and blocks {theirs}, the tokenizer {codec.config.name!r} has {ours};"
            " give the tokenizer that it was trained with"
        )
    if config.model_hash is not None and config.model_hash != codec.weights_hash:
        raise GeneratorMismatchError(
            f"{named} was trained with the tokenizer {config.model!r} with weights {config.model_hash[:12]}, this is"
            f" {codec.config.name!r} with {codec.weights_hash[:12]}; give that tokenizer"
        )


def _seeds(count: int, seeds: Sequence[int] | None, generator: torch.Generator | None) -> list[int]:
    if seeds is None:
        base = int(torch.randint(2**62, (), generator=generator))
        return [int(np.random.SeedSequence((base, index)).generate_state(1, np.uint64)[0]) for index in range(count)]
    if len(seeds) != count or min(seeds) < 0:
        raise ValueError(f"{len(seeds)} seeds for {count} clips, expected one each, none negative")
    return [int(seed) for seed in seeds]

"""The training loop that every stage shares.

A step is a function of the configuration, the seed and its number: clips are indexed by position, random numbers are
seeded from the step. So a run that is stopped and resumed is the run that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adaptok.checkpoints import read_folder, write_folder
from adaptok.data import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ClipMixture,
    ClipSource,
    ImageFolder,
    VideoFolder,
    find_files,
    fixed_clips,
)
from adaptok.evaluation.distortion import psnr
from adaptok.files import replacing
from adaptok.models.layers import Mlp, TransformerStack
from adaptok.models.model import Model
from adaptok.training import checkpoint
from adaptok.training.configuration import OptimizerConfig, TrainingConfig
from adaptok.training.journal import plot_metrics, save_samples, write_card
from adaptok.training.linear_start import WRITTEN, linear_start
from adaptok.training.losses import Adversary
from adaptok.training.objectives import Draw, ScorerObjective, TokenizerObjective, build_objective

START_CLIPS = 256
"""Clips whose principal components make a linear start."""
STATISTICS_BATCHES = 16
"""Batches over which a scorer's targets are measured before its training."""


@dataclass(frozen=True)
class Data:
    """Clips to train on, by index, and clips `[N, C, T, S, S]` to validate on.

    files: how many the clips come from, where they do: an epoch.
    broken: those of them that cannot be read, with the reason.
    """

    train: Dataset[Tensor]
    validation: Tensor | None
    files: int | None = None
    broken: Mapping[str, str] = field(default_factory=dict)


def open_data(config: TrainingConfig) -> Data:
    """The clips that a configuration names.

    Raises:
        ValueError: a folder holds nothing that can be read.
    """
    tokenizer, data = config.model.tokenizer, config.data
    if not data.train:
        raise ValueError("nothing to train on; name folders or manifests with --data.train")
    groups = [(entry,) for entry in data.train] if data.weights else [data.train]
    sources: list[ClipSource] = []
    weights: list[float] = []
    for group, weight in zip(groups, data.weights or [1.0], strict=True):
        videos = VideoFolder(group) if any(find_files(group, VIDEO_SUFFIXES)) else None
        images = ImageFolder(group) if any(find_files(group, IMAGE_SUFFIXES)) else None
        if videos is None and images is None:
            raise ValueError(f"no video and no photograph in {', '.join(group)}")
        share = data.image_share if videos is not None else 1.0
        if videos is not None:
            sources.append(videos)
            weights.append(weight * (1 - share if images is not None else 1.0))
        if images is not None:
            sources.append(images)
            weights.append(weight * share)
    broken = {path: reason for source in sources for path, reason in source.broken.items()}
    listed = sum(source.listed for source in sources)
    if len(broken) > data.most_broken * listed:
        raise ValueError(
            f"{len(broken)} of {listed} files cannot be read, more than data.most_broken {data.most_broken:g} allows;"
            f" the first: {next(f'{path}: {reason}' for path, reason in broken.items())}"
        )
    train = ClipMixture(
        sources,
        weights,
        frames=tokenizer.frames,
        size=tokenizer.size,
        seed=config.seed,
        strides=data.strides,
        flip=data.flip,
        cache_bytes=int(data.cache_gib * 2**30),
    )
    validation = None
    if data.validation is not None:
        validation = fixed_clips(data.validation, frames=tokenizer.frames, size=tokenizer.size, per_video=1)
    return Data(train, validation, train.files, broken)


def run_length(config: TrainingConfig, files: int | None, processes: int = 1) -> tuple[int, int]:
    """Steps of a run, and those of its warm-up.

    Raises:
        ValueError: it is given in epochs, and the number of files is not known.
    """
    if config.steps is not None:
        return config.steps, config.optimizer.warmup_steps
    assert config.epochs is not None
    if not files:
        raise ValueError("the length of the run is given in epochs, which needs files; give steps")
    per_epoch = files / (config.batch * config.accumulation * processes)
    warmup = config.optimizer.warmup_epochs
    return max(1, math.ceil(config.epochs * per_epoch)), (
        config.optimizer.warmup_steps if warmup is None else math.ceil(warmup * per_epoch)
    )


def learning_rate_factor(config: OptimizerConfig, step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step` of `steps`, the first `warmup` of which it rises."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "constant":
        return 1.0
    shape = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_ratio + (1 - config.final_ratio) * shape


def new_model(config: TrainingConfig, data: Data) -> Model:
    """The model that a run starts from."""
    torch.manual_seed(config.seed)
    if config.initial is None:
        model = Model(config.model)
        if config.start == "linear":
            linear_start(model.tokenizer, torch.stack([data.train[i] for i in range(START_CLIPS)]))
        return model
    source = read_folder(config.initial).build()
    if source.config.tokenizer != config.model.tokenizer:
        raise ValueError(f"the tokenizer in {config.initial} has another configuration than this run")
    model = Model(config.model)
    model.tokenizer.load_state_dict(source.tokenizer.state_dict())
    if source.scorer is not None and source.config.scorer == config.model.scorer:
        assert model.scorer is not None
        model.scorer.load_state_dict(source.scorer.state_dict())
    return model


def measure_targets(model: Model, config: TrainingConfig, data: Data) -> Model:
    """The same model with its scorer normalised by the statistics of true distortions over the training clips."""
    assert model.scorer is not None
    assert config.model.scorer is not None
    unit = {"mean": 0.0, "std": 1.0}
    probe_config = config.model.model_copy(update={"scorer": config.model.scorer.model_copy(update=unit)})
    probe = Model(probe_config)
    probe.load_state_dict(model.state_dict())
    objective = ScorerObjective(probe, config)
    values = []
    with torch.inference_mode():
        for batch in range(STATISTICS_BATCHES):
            generator = torch.Generator().manual_seed(batch)
            clips = torch.stack([data.train[batch * config.batch + i] for i in range(config.batch)])
            block = batch % model.config.tokenizer.blocks
            lengths = torch.randint(1, model.config.tokenizer.latents + 1, (block,), generator=generator).tolist()
            clips = clips[:, :, : (block + 1) * model.config.tokenizer.temporal_patch_size]
            inputs = probe.tokenizer.project_codes(probe.tokenizer.quantize(probe.tokenizer.encode(clips)).codes)
            assert probe.scorer is not None
            values.append(probe.scorer.normalize(objective.distortions(clips, inputs, lengths)).flatten())
    everything = torch.cat(values)
    measured = {"mean": round(everything.mean().item(), 6), "std": round(everything.std().item(), 6)}
    scorer = config.model.scorer.model_copy(update=measured)
    final = Model(config.model.model_copy(update={"scorer": scorer}))
    final.load_state_dict(model.state_dict())
    return final


class Run:
    """One training run in a folder.

    Args:
        config: what to do.
        data: clips.
        folder: configuration, metrics, checkpoints and the exported model go here.
        report: called with each logged line of metrics.

    Raises:
        ValueError: the folder holds a run of another configuration.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        folder: Path,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.config, self.data, self.folder, self.report = config, data, folder, report
        precision = "bf16" if config.precision == "bfloat16" else "no"
        self.accelerator = Accelerator(
            mixed_precision=precision,
            cpu=not torch.cuda.is_available(),
            log_with=list(config.trackers) or None,
            project_dir=folder,
        )
        self.steps, self.warmup = run_length(config, data.files, self.accelerator.num_processes)
        folder.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            self._claim_folder()
        self.accelerator.wait_for_everyone()
        found = checkpoint.folders(folder)
        if found:
            state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
            model = Model(type(config.model).parse(state["model"]))
        else:
            model = new_model(config, data)
            if config.stage == "scorer":
                model = measure_targets(model, config, data)
        self.model = model.to(self.accelerator.device)
        self._prepare_layers()
        objective = build_objective(self.model, config)
        self.parameters = dict(objective.trained())
        self._modules: dict[str, torch.nn.Module] = {"model": self.model}
        self._optimizers = {"optimizer": self._optimizer()}
        self.objective, self.optimizer = self.accelerator.prepare(objective, self._optimizers["optimizer"])
        self._adversary: Adversary | None = None
        if config.stage == "tokenizer" and config.losses.adversarial:
            self._prepare_adversary()
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()} if config.ema_decay else None
        self.step, self.best = 0, -math.inf
        if found:
            state = checkpoint.restore(found[-1], self._modules, self.average, self._optimizers)
            self.step, self.best = int(state["step"]), float(state["best"])
        if self.accelerator.is_main_process:
            self._trim_metrics()
        self.accelerator.init_trackers("adaptok", config=None)

    def _prepare_layers(self) -> None:
        config = self.config
        stacks = [module for module in self.model.modules() if isinstance(module, TransformerStack)]
        for stack in stacks:
            stack.checkpointing = config.activation_checkpointing
            if config.compile:
                for part in stack.modules():
                    if isinstance(part, Mlp | torch.nn.LayerNorm):
                        part.compile()

    def _prepare_adversary(self) -> None:
        discriminator = self.config.discriminator
        torch.manual_seed(self.config.seed + 1)
        self._adversary = Adversary(discriminator, self.config.model.tokenizer).to(self.accelerator.device)
        optimizer = torch.optim.AdamW(
            self._adversary.parameters(), lr=discriminator.learning_rate, betas=discriminator.betas, weight_decay=0.0
        )
        self._modules["adversary"] = self._adversary
        self._optimizers["adversary-optimizer"] = optimizer
        self.critic, self.critic_optimizer = self.accelerator.prepare(self._adversary, optimizer)

    def _claim_folder(self) -> None:
        path, text = self.folder / "config.yaml", yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{self.folder} holds a run of another configuration; choose another folder or remove it")
        path.write_text(text, encoding="utf-8")

    def _trim_metrics(self) -> None:
        """Forget lines of steps that will be done again."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
            except ValueError:  # written when the run was killed
                continue
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def _optimizer(self) -> torch.optim.Optimizer:
        config = self.config.optimizer
        written = tuple(f"tokenizer.{name}" for name in WRITTEN) if self.config.start == "linear" else ()
        rates: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            multiplier = config.prior_multiplier if name.startswith("prior.") else 1.0
            multiplier = config.written_multiplier if name.startswith(written) else multiplier
            rates.setdefault(config.learning_rate * multiplier, []).append(parameter)
        groups = [{"params": parameters, "initial_lr": rate} for rate, parameters in rates.items()]
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)

    def _batches(self) -> Iterator[Tensor]:
        config, processes = self.config, self.accelerator.num_processes
        per_step = config.batch * config.accumulation * processes
        rank = self.accelerator.process_index

        def order() -> Iterator[list[int]]:
            for step in range(self.step, self.steps):
                for micro in range(config.accumulation):
                    first = step * per_step + (micro * processes + rank) * config.batch
                    yield list(range(first, first + config.batch))

        workers = config.data.workers
        return iter(DataLoader(self.data.train, batch_sampler=list(order()), num_workers=workers))

    def train(self) -> Model:
        """Run to the last step and return the exported model."""
        batches, started, logged = self._batches(), time.monotonic(), self.step
        waited = 0.0
        while self.step < self.steps:
            metrics, waiting = self._train_step(batches)
            waited += waiting
            self.step += 1
            last = self.step == self.steps
            if self.step % self.config.log_every == 0 or last:
                clips = (self.step - logged) * self.config.batch * self.config.accumulation
                elapsed = time.monotonic() - started
                values = {name: self._mean(value) for name, value in metrics.items()}
                speed = {
                    "clips_per_second": clips * self.accelerator.num_processes / elapsed,
                    "waiting_for_data": waited / elapsed,
                }
                self._log({**values, **speed})
                started, logged, waited = time.monotonic(), self.step, 0.0
            if self.step % self.config.validate_every == 0 or last:
                self._validate()
            if self.step % self.config.checkpoint_every == 0 or last:
                self.save()
        self._note_broken()
        self.accelerator.end_training()
        return self.export()

    def _mean(self, value: Tensor) -> float:
        """Over all processes."""
        return float(self.accelerator.reduce(value.float(), "mean"))

    def _train_step(self, batches: Iterator[Tensor]) -> tuple[dict[str, Tensor], float]:
        """One step; returns its metrics, and the seconds that it waited for clips."""
        config, accelerator = self.config, self.accelerator
        factor = learning_rate_factor(config.optimizer, self.step, self.steps, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.objective.train()
        adversary = self._adversary if self.step >= config.losses.start.get("adversarial", 0) else None
        criticise = adversary is not None and self.step % config.discriminator.every == 0
        metrics: dict[str, Tensor] = {}
        waited = 0.0
        for micro in range(config.accumulation):
            started = time.monotonic()
            clips = next(batches).to(accelerator.device)
            waited += time.monotonic() - started
            draw = self._draw(micro)
            maker = None if adversary is None else adversary.of_maker
            more = micro < config.accumulation - 1
            with accelerator.no_sync(self.objective) if more else nullcontext():
                outcome = self.objective(clips, draw, self.step, self.step / self.steps, maker)
                self._check(outcome.loss, outcome.metrics)
                accelerator.backward(outcome.loss / config.accumulation)
            metrics = {"loss": outcome.loss.detach(), **outcome.metrics}
            if criticise:
                with accelerator.autocast():
                    loss, more_metrics = self.critic(clips, outcome.prediction, draw.device)
                self._check(loss, more_metrics)
                accelerator.backward(loss / config.accumulation)
                metrics |= more_metrics
        norm = accelerator.clip_grad_norm_(self.parameters.values(), config.optimizer.clip_norm)
        self._check_gradient(norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if criticise:
            self.critic_optimizer.step()
            self.critic_optimizer.zero_grad()
        self._update_average()
        return {**metrics, "gradient_norm": norm.detach(), "rate": norm.new_tensor(factor)}, waited

    def _check(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> None:
        if torch.isfinite(loss):
            return
        parts = [name for name, value in metrics.items() if not torch.isfinite(value)]
        raise FloatingPointError(
            f"the loss of step {self.step} is {loss.item()} (from: {', '.join(parts) or 'the sum'});"
            f" the weights are untouched, and the last checkpoint in {self.folder} is good"
        )

    def _check_gradient(self, norm: Tensor) -> None:
        if torch.isfinite(norm):
            return
        parts = [n for n, p in self.parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
        raise FloatingPointError(
            f"the gradient of step {self.step} is not finite (in {', '.join(parts[:3]) or 'its norm'});"
            f" the weights are untouched, and the last checkpoint in {self.folder} is good"
        )

    def _draw(self, micro: int) -> Draw:
        position = (self.step * self.config.accumulation + micro) * self.accelerator.num_processes
        seed = (self.config.seed << 32) + position + self.accelerator.process_index
        torch.manual_seed(seed)  # dropout
        return Draw(torch.Generator().manual_seed(seed), torch.Generator(self.accelerator.device).manual_seed(seed))

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    def _log(self, values: dict[str, Any]) -> None:
        line = {"step": self.step, **values}
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.accelerator.log({k: v for k, v in line.items() if k != "step"}, step=self.step)
            if self.report is not None:
                self.report(line)

    def averaged(self) -> Model:
        """A copy of the model with the moving average as its weights."""
        model = Model(self.model.config)
        model.load_state_dict({name: t.detach().cpu() for name, t in self.model.state_dict().items()})
        if self.average is not None:
            model.load_state_dict({name: t.cpu() for name, t in self.average.items()}, strict=False)
        return model.eval()

    def _validate(self) -> None:
        """Measure, draw, and keep the best model so far."""
        values = self.validate()
        self._log(values)
        if not self.accelerator.is_main_process:
            return
        plot_metrics(self.folder / "metrics.jsonl", self.folder / "metrics.png")
        if not values or self.data.validation is None:
            return
        model = self.averaged()
        if self.config.stage == "tokenizer":
            save_samples(self.folder / "samples" / f"step-{self.step:08d}", model, self.data.validation)
            value = sum(values.values())
        else:
            value = -values["validation_loss"]
        if value > self.best:
            self.best = value
            write_folder(model, self.folder / "best")

    def _note_broken(self) -> None:
        """Name the files that could not be read."""
        if self.data.broken and self.accelerator.is_main_process:
            with replacing(self.folder / "broken.json") as path:
                path.write_text(json.dumps(dict(self.data.broken), indent=2), encoding="utf-8")
            if self.report is not None:
                self.report({"step": self.step, "broken_files": len(self.data.broken)})

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """PSNR of the validation clips at a few lengths (tokenizer), or the scorer's error on them."""
        clips = self.data.validation
        if clips is None:
            return {}
        model = self.averaged()
        if self.config.stage == "tokenizer":
            return validate_tokenizer(model, clips)
        objective = ScorerObjective(model, self.config)
        outcomes = [
            objective(clips, Draw(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)), 0, 0.0)
            for seed in range(8)
        ]
        error = torch.stack([outcome.metrics["relative_error"] for outcome in outcomes]).mean().item()
        loss = torch.stack([outcome.loss for outcome in outcomes]).mean().item()
        return {"validation_loss": loss, "validation_relative_error": error}

    def save(self) -> None:
        """Write a checkpoint of the current step."""
        if self.accelerator.is_main_process:
            extra = {"model": self.model.config.model_dump(mode="json"), "best": self.best}
            checkpoint.save(
                self.folder,
                self.step,
                self._modules,
                self.average,
                self._optimizers,
                extra,
                self.config.keep_checkpoints,
            )
        self.accelerator.wait_for_everyone()

    def export(self) -> Model:
        """Write the averaged model as a model folder, `RUN/model`."""
        model = self.averaged()
        if self.accelerator.is_main_process:
            write_folder(model, self.folder / "model")
            write_card(self.folder / "model" / "README.md", self.config, self.folder / "metrics.jsonl", self.step)
        return model


def validate_tokenizer(model: Model, clips: Tensor, batch: int = 8) -> dict[str, float]:
    """PSNR in dB, the mean over clips, at an eighth, a quarter, half and all of the latents of every block."""
    tokenizer = model.tokenizer
    results: dict[str, list[Tensor]] = {}
    for part in clips.split(batch):
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(part)).codes)
        for share in (8, 4, 2, 1):
            length = tokenizer.config.latents // share
            decoded = tokenizer.decode(inputs, [[length] * tokenizer.config.blocks] * len(part)).float()
            mse = (decoded.clamp(0, 1) - part).square().mean((1, 2, 3, 4))
            results.setdefault(f"validation_psnr_{length}", []).append(psnr(mse))
    return {name: torch.cat(values).mean().item() for name, values in results.items()}


__all__ = ["Data", "Run", "ScorerObjective", "TokenizerObjective", "learning_rate_factor", "validate_tokenizer"]

"""Training loop of all stages. What differs between them is in `stages` and `objectives`.

A step is a function of the configuration, the seed and its number: clips are indexed by position, and random numbers
are seeded from the step. An interrupted run therefore resumes to the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.optimization import RunConfig
from adaptok.config.training import AnyConfig
from adaptok.training import sharding
from adaptok.training.adversarial import DiscriminatorTrainer
from adaptok.training.checkpointing import (
    AnyModel,
    RunState,
    build_model,
    claim_folder,
    collect_tensors,
    list_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from adaptok.training.clip_data import ClipBatch
from adaptok.training.metrics_logger import LogRecord, MetricsLogger
from adaptok.training.objectives import StepContext
from adaptok.training.optim import RunLength, lr_factor, run_length
from adaptok.training.reporting import plot_metrics, write_model_card
from adaptok.training.sequences import TokenBatch
from adaptok.training.stages import AnyData, build_stage
from adaptok.utils.files import replacing

Batches = Iterator[ClipBatch | TokenBatch]


@dataclass
class StepResult:
    """Result of one optimizer step on this process."""

    metrics: dict[str, Tensor]
    """Scalars by name, averaged over accumulation steps."""
    data_seconds: float
    """Time spent waiting for data."""


class Trainer:
    """One training run in a folder.

    Args:
        config: configuration of the run.
        data: clips, or token sequences for a generator.
        folder: receives configuration, metrics, checkpoints and the exported model. A run in it is resumed.
        log: called with each record of metrics on the main process.

    Raises:
        ValueError: the folder holds a run of another configuration, or the batch size does not fit the processes.
    """

    def __init__(
        self,
        config: AnyConfig,
        data: AnyData,
        folder: Path,
        log: Callable[[LogRecord], None] | None = None,
    ) -> None:
        self.accelerator = _create_accelerator(config, folder)
        processes = self.accelerator.num_processes
        self.batch = config.batch_plan(processes)
        self.config, self.data, self.folder = config.with_batch_plan(processes), data, folder
        folder.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            claim_folder(folder, config, processes)
        self.accelerator.wait_for_everyone()
        checkpoints = list_checkpoints(folder)
        state = RunState.load(checkpoints[-1]) if checkpoints else None
        plan = None if state is None else state.plan
        self.length = RunLength(*plan) if plan else run_length(self.config, data.epoch_size, processes)
        self.stage = build_stage(self.config, data, self.accelerator.device)
        model = self.stage.initial_model() if state is None else self.stage.checkpoint_model(state.model)
        self.model: AnyModel = model.to(self.accelerator.device)
        self.stage.configure(self.model)
        self._prepare_objective()
        self._prepare_discriminator()
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()} if config.ema_decay else None
        self.step, self.best, self.broken = 0, -math.inf, dict(data.broken)
        if state is not None:
            restore_checkpoint(checkpoints[-1], self._modules, self.average, self._optimizers)
            self.step, self.best = state.step, state.best
            self.broken |= state.broken
        self.logger = MetricsLogger(folder / "metrics.jsonl", self.accelerator, self.step, self.length.steps, log)

    def _prepare_objective(self) -> None:
        objective = self.stage.objective(self.model)
        if self.config.sharding:
            sharding.shard(objective, self.accelerator.device, self.accelerator.num_processes)
        self.parameters = dict(objective.trained_parameters())
        self._modules: dict[str, nn.Module] = {"model": self.model}
        self._optimizers = self.stage.optimizers(self.parameters)
        self.optimizers = [self.accelerator.prepare(optimizer) for optimizer in self._optimizers.values()]
        self.objective = objective if self.config.sharding else self.accelerator.prepare(objective)

    def _prepare_discriminator(self) -> None:
        torch.manual_seed(self.config.seed + 1)
        loss = self.stage.adversarial_loss()
        self.discriminator: DiscriminatorTrainer | None = None
        if loss is not None:
            assert self.config.stage != "generator"
            start_step = self.config.losses.start_steps.get("adversarial", 0)
            self.discriminator = DiscriminatorTrainer(loss, self.accelerator, start_step)
            self._modules["adversary"] = self.discriminator.loss
            self._optimizers["adversary-optimizer"] = self.discriminator.optimizer

    def train(self) -> AnyModel:
        """Train to the last step and return the exported model."""
        batches = self.batches()
        started, logged_step, data_seconds = time.monotonic(), self.step, 0.0
        while self.step < self.length.steps:
            result = self.train_step(batches)
            self.step += 1
            data_seconds += result.data_seconds
            last = self.step == self.length.steps
            if self.step % self.config.log_every == 0 or last:
                elapsed = time.monotonic() - started
                clips = (self.step - logged_step) * self.batch.batch_size
                speed = {"clips_per_second": clips / elapsed, "waiting_for_data": data_seconds / elapsed}
                self.logger.log(self.step, {**self._average_over_processes(result.metrics), **speed})
                started, logged_step, data_seconds = time.monotonic(), self.step, 0.0
            if self.step % self.config.validate_every == 0 or last:
                self.validate()
            if self.step % self.config.checkpoint_every == 0 or last:
                self.save()
        self._report_broken()
        model = self.export()
        self.accelerator.end_training()  # shuts down the process group
        return model

    def train_step(self, batches: Batches) -> StepResult:
        """Take one optimizer step on the next micro-batches.

        Raises:
            FloatingPointError: the loss or the gradient is not finite. The weights are unchanged.
            ValueError: more files turned out to be broken than allowed.
        """
        result = self.forward_backward(batches)
        norm = self._clip_gradients()
        self._check_finite(result.metrics, norm)
        result.metrics |= {"gradient_norm": norm, "lr": norm.new_tensor(self._update_lr())}
        self.optimizer_step()
        return result

    def forward_backward(self, batches: Batches) -> StepResult:
        """Accumulate the gradients of the micro-batches of one step."""
        self.objective.train()
        discriminator = self.discriminator if self.discriminator and self.discriminator.active(self.step) else None
        accumulation, totals, data_seconds = self.batch.gradient_accumulation_steps, dict[str, Tensor](), 0.0
        for micro_step in range(accumulation):
            started = time.monotonic()
            batch, broken = next(batches)
            clips = batch.to(self.accelerator.device, non_blocking=True)
            data_seconds += time.monotonic() - started
            if broken:
                self.broken |= broken
                self.stage.check_broken(self.broken)
            context = self._step_context(micro_step, discriminator)
            with self._gradient_sync(last=micro_step == accumulation - 1):
                with self._autocast():
                    output = self.objective(clips, context)
                self.accelerator.backward(output.loss / accumulation)
            metrics = {"loss": output.loss.detach(), **output.metrics}
            if discriminator is not None and discriminator.updates(self.step):
                with self._autocast():
                    loss, more = discriminator.prepared(clips, output.reconstructions, context.device_generator)
                self.accelerator.backward(loss / accumulation)
                metrics |= more
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value.float() / accumulation
        return StepResult(totals, data_seconds)

    def optimizer_step(self) -> None:
        """Update the weights and their moving average from the accumulated gradients."""
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.discriminator is not None and self.discriminator.updates(self.step):
            self.discriminator.optimizer_step()
        if self.average is None:
            return
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages = [sharding.local_part(average) for average in self.average.values()]
            weights = [sharding.local_part(parameter.detach()) for parameter in self.parameters.values()]
            torch._foreach_lerp_(averages, weights, 1 - decay)

    def batches(self) -> Batches:
        """Iterate over the micro-batches of this process, from the current step to the last."""
        processes, rank, size = self.accelerator.num_processes, self.accelerator.process_index, self.batch

        def indices() -> Iterator[list[int]]:
            for step in range(self.step, self.length.steps):
                for micro_step in range(size.gradient_accumulation_steps):
                    first = step * size.batch_size + (micro_step * processes + rank) * size.micro_batch_size
                    yield list(range(first, first + size.micro_batch_size))

        loader: DataLoader[Any] = DataLoader(
            self.data.train,
            batch_sampler=_LazySampler(indices),
            num_workers=self.config.data.workers,
            collate_fn=self.stage.collate(size.batch_size, size.micro_batch_size),
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return iter(loader)

    def _step_context(self, micro_step: int, discriminator: DiscriminatorTrainer | None) -> StepContext:
        position = (self.step * self.batch.gradient_accumulation_steps + micro_step) * self.accelerator.num_processes
        seed = (self.config.seed << 32) + position + self.accelerator.process_index
        torch.manual_seed(seed)  # dropout
        adversarial = None if discriminator is None else discriminator.loss.reconstruction_loss
        return StepContext.seeded(
            seed, self.accelerator.device, self.step, self.step / self.length.steps, adversarial=adversarial
        )

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=enabled)

    def _gradient_sync(self, last: bool) -> AbstractContextManager[None]:
        """Reduce gradients over processes in the last backward pass of a step only."""
        if self.config.sharding:
            sharding.set_gradient_sync(self.objective, last)
            return nullcontext()
        context: AbstractContextManager[None] = nullcontext() if last else self.accelerator.no_sync(self.objective)
        return context

    def _clip_gradients(self) -> Tensor:
        """Clip the gradients and return their norm before clipping."""
        limit = self.config.optimizer.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), math.inf if limit is None else limit)
        return sharding.gather(norm).detach()

    def _check_finite(self, metrics: dict[str, Tensor], norm: Tensor) -> None:
        losses = [metrics[name] for name in ("loss", "discriminator", "lecam") if name in metrics]
        if all(torch.isfinite(value) for value in (*losses, norm)):
            return
        values = [name for name, value in metrics.items() if name != "loss" and not torch.isfinite(value)]
        gradients = [n for n, p in self.parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
        if torch.isfinite(metrics["loss"]):
            cause = f"the gradient of step {self.step} is not finite (in {', '.join(gradients[:3]) or 'its norm'})"
        else:
            cause = f"the loss of step {self.step} is {metrics['loss'].item()} (from {', '.join(values) or 'the sum'})"
        raise FloatingPointError(
            f"{cause}; the weights are unchanged, resume from the last checkpoint in {self.folder}"
        )

    def _update_lr(self) -> float:
        """Set the learning rates of this step. Returns that of the weights without a multiplier."""
        factor = lr_factor(self.config.optimizer, self.step, self.length)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return self.config.optimizer.lr * factor

    def _average_over_processes(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        means = self.accelerator.reduce(torch.stack([value.float() for value in metrics.values()]), "mean")
        return dict(zip(metrics, means.tolist(), strict=True))

    def averaged_model(self) -> AnyModel:
        """Return a copy of the model on the CPU with averaged weights. Every process must call this method."""
        model: AnyModel = build_model(self.stage.kind, self.model.config.model_dump())
        weights = {name: sharding.gather(t.detach()).cpu() for name, t in self.model.state_dict().items()}
        if self.average is not None:
            weights |= {name: sharding.gather(t).cpu() for name, t in self.average.items()}
        model.load_state_dict(weights)
        return model.eval()

    def validate(self) -> None:
        """Measure the averaged model, save samples and curves, and keep the best model so far."""
        model = self.averaged_model().to(self.accelerator.device)
        if self.accelerator.is_main_process:
            measurements = self.stage.validate(model)
            self.logger.log(self.step, measurements)
            plot_metrics(self.folder / "metrics.jsonl", self.folder / "metrics.png")
            self.stage.save_samples(model, self.folder / "samples" / f"step-{self.step:08d}")
            if measurements and (score := self.stage.score(measurements)) > self.best:
                self.best = score
                write_folder(model, self.folder / "best")
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write a checkpoint of the current step. Every process must call this method."""
        main = self.accelerator.is_main_process
        tensors = collect_tensors(self._modules, self.average, self._optimizers, keep=main)
        if main:
            config = self.model.config.model_dump(mode="json")
            state = RunState(
                self.step,
                config,
                self.stage.kind,
                self.best,
                (self.length.steps, self.length.warmup_steps),
                self.broken,
            )
            save_checkpoint(self.folder, tensors, state, self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def export(self) -> AnyModel:
        """Write the averaged model and its card to the folder `model` of the run."""
        model = self.averaged_model()
        if self.accelerator.is_main_process:
            model = self.stage.finish(model)
            write_folder(model, self.folder / "model")
            write_model_card(
                self.folder / "model" / "README.md",
                self.stage.card_text(),
                self.config,
                self.folder / "metrics.jsonl",
                steps=self.step,
                batch_size=self.batch.batch_size,
            )
        self.accelerator.wait_for_everyone()  # no process ends while files are being written
        return model

    def _report_broken(self) -> None:
        """List the files that any process could not read in `broken.json`."""
        gathered = gather_object([self.broken])
        self.broken = {path: reason for broken in gathered for path, reason in broken.items()}
        if self.broken and self.accelerator.is_main_process:
            with replacing(self.folder / "broken.json") as path:
                path.write_text(json.dumps(dict(sorted(self.broken.items())), indent=2), encoding="utf-8")


class _LazySampler:
    """Batch sampler that generates the indices anew for each iteration, since those of a long run fill memory."""

    def __init__(self, generate: Callable[[], Iterator[list[int]]]) -> None:
        self._generate = generate

    def __iter__(self) -> Iterator[list[int]]:
        return self._generate()


def _create_accelerator(config: RunConfig, folder: Path) -> Accelerator:
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ValueError("accelerate is configured for FSDP; set sharding: true (--sharding) in the run instead")
    accelerator = Accelerator(
        mixed_precision="no",  # would hold for all runs of this process; Trainer uses autocast
        cpu=not torch.cuda.is_available(),
        log_with=list(config.trackers) or None,
        project_dir=folder,
    )
    if config.sharding and accelerator.num_processes == 1:
        raise ValueError("sharding needs several processes; launch the run with: torchrun --nproc-per-node N")
    return accelerator

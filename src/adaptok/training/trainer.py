"""Training loop of all stages. What differs between them is in `stages` and `objectives`.

A step is a function of the configuration, the seed and its number: clips are indexed by position, and random numbers
are seeded from the step. An interrupted run therefore resumes to the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.training import AnyConfig
from adaptok.training import sharding
from adaptok.training.adversarial import DiscriminatorTrainer
from adaptok.training.averaging import averaged_state, update_average
from adaptok.training.batches import Batches, OpenBatches, ProcessRank, iterate_batches
from adaptok.training.checkpoint_choice import CheckpointGuard
from adaptok.training.checkpointing import (
    AnyModel,
    RunState,
    build_model,
    collect_tensors,
    mark_exported,
    restore_checkpoint,
    save_checkpoint,
)
from adaptok.training.interruption import StopSignals, TrainingInterrupted
from adaptok.training.metrics_logger import LogRecord, MetricsLogger
from adaptok.training.model_card import write_model_card
from adaptok.training.objectives import StepContext
from adaptok.training.optim import RunLength, layer_weights, lr_factor, run_length
from adaptok.training.precision import LossScaler, check_finite
from adaptok.training.processes import create_accelerator, mean_over_processes, report_broken
from adaptok.training.reporting import plot_metrics
from adaptok.training.resuming import check_folder, open_checkpoint, resumed_length, write_config
from adaptok.training.stages import AnyData, build_stage
from adaptok.utils.devices import DTYPES


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

    Attributes:
        warning: what is wrong with checkpoints that were set aside, on the main process.

    Raises:
        ValueError: the folder holds a run of another configuration or only damaged checkpoints, the batch size does not
            fit the processes, or the model does not fit into the memory.
    """

    def __init__(
        self,
        config: AnyConfig,
        data: AnyData,
        folder: Path,
        log: Callable[[LogRecord], None] | None = None,
    ) -> None:
        self.accelerator = create_accelerator(config, folder)
        processes = self.accelerator.num_processes
        self.batch = config.batch_plan(processes)
        self.config, self._given_config = config.with_batch_plan(processes), config
        self.data, self.folder, self._log = data, folder, log
        changed_length = check_folder(folder, config, processes)
        checkpoint, _, self.warning = open_checkpoint(folder, self.accelerator)
        state = None if checkpoint is None else RunState.load(checkpoint)
        self.length = self._run_length(None if state is None else state.plan, changed_length)
        self.stage = build_stage(self.config, data, self.accelerator.device)
        model = self.stage.initial_model() if state is None else self.stage.checkpoint_model(state.model)
        self.model: AnyModel = model.to(self.accelerator.device)
        self.stage.configure(self.model)
        self.scaler = LossScaler(config.precision == "float16")
        self._prepare_objective()
        self._prepare_discriminator()
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()} if config.ema_decay else None
        self.state = RunState(0, {}) if state is None else state
        self.step, self.best, self.validated = self.state.step, self.state.best, self.state.validated
        self.broken = dict(data.broken) | self.state.broken
        if checkpoint is not None and state is not None:
            restore_checkpoint(checkpoint, self._modules, self.average, self._optimizers)
            self.scaler.load(state.loss_scale)
        self._guard = CheckpointGuard(folder, config.keep_checkpoints, self.accelerator.is_main_process)
        self._signals = StopSignals()

    @property
    def finished(self) -> bool:
        """Whether the folder holds the exported model of the last step."""
        return self.state.exported and self.step >= self.length.steps

    def _run_length(self, plan: tuple[int, int] | None, changed: bool) -> RunLength:
        if plan is not None and not changed:
            return RunLength(*plan)
        new = run_length(self.config, self.data.epoch_size, self.accelerator.num_processes)
        return new if plan is None else resumed_length(self.folder, RunLength(*plan), new)

    def _prepare_objective(self) -> None:
        objective = self.stage.objective(self.model)
        if self.config.sharding:
            sharding.shard(objective, self.accelerator.device, self.accelerator.num_processes)
        self.parameters = dict(objective.trained_parameters())
        self._modules: dict[str, nn.Module] = {"model": self.model}
        self._optimizers = self.stage.optimizers(self.parameters, layer_weights(self.model))
        self.optimizers = [self.accelerator.prepare(optimizer) for optimizer in self._optimizers.values()]
        self.objective = objective if self.config.sharding else self.accelerator.prepare(objective)

    def _prepare_discriminator(self) -> None:
        torch.manual_seed(self.config.seed + 1)
        loss = self.stage.adversarial_loss()
        self.discriminator: DiscriminatorTrainer | None = None
        if loss is not None:
            assert self.config.stage != "generator"
            start_step = self.config.losses.start_steps.get("adversarial", 0)
            self.discriminator = DiscriminatorTrainer(loss, self.accelerator, start_step, self.scaler)
            self._modules["adversary"] = self.discriminator.loss
            self._optimizers["adversary-optimizer"] = self.discriminator.optimizer

    def train(self) -> AnyModel:
        """Train to the last step and return the exported model.

        SIGINT and SIGTERM stop the run after the current step, once a checkpoint is saved.

        Raises:
            TrainingInterrupted: the run was stopped by a signal.
        """
        self._start()
        with StopSignals() as self._signals:
            if self._validation_due and self.validated < self.step:
                self.validate()  # the run was stopped before it had validated this step
                self._stop_if_asked()
            with contextlib.closing(self.batches()) as batches:
                self._run_steps(batches)
        self.broken = report_broken(self.accelerator, self.folder, self.broken)
        model = self.export()
        self.accelerator.end_training()  # shuts down the process group
        return model

    def _start(self) -> None:
        if self.accelerator.is_main_process:
            write_config(self.folder, self._given_config)
        self.accelerator.wait_for_everyone()
        self.logger = MetricsLogger(
            self.folder, self.accelerator, self.step, self.length.steps, self.validated, self._log
        )
        self.logger.start_trackers(self.config)

    def _run_steps(self, batches: Batches) -> None:
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
                self.logger.log(self.step, {**mean_over_processes(self.accelerator, result.metrics), **speed})
                started, logged_step, data_seconds = time.monotonic(), self.step, 0.0
            else:
                self.logger.show_first(self.step, result.metrics)
            self._stop_if_asked()
            if self._validation_due:
                self.validate()
                self._stop_if_asked()
            if self.step % self.config.checkpoint_every == 0 or last:
                self.save()
        self._guard.proven()

    @property
    def _validation_due(self) -> bool:
        return self.step > 0 and (self.step % self.config.validate_every == 0 or self.step == self.length.steps)

    def _stop_if_asked(self) -> None:
        """Save a checkpoint and raise TrainingInterrupted if any process received a signal."""
        if self._signals.received is not None:
            self.accelerator.set_trigger()
        if self.accelerator.num_processes == 1 and self._signals.received is None:
            return
        if not self.accelerator.check_trigger():
            return
        if self.step != self.state.step or self.validated != self.state.validated:
            self.save()
        self.accelerator.end_training()
        raise TrainingInterrupted.after_step(self._signals.received, self.step, self.length.steps)

    def train_step(self, batches: Batches) -> StepResult:
        """Take one optimizer step on the next micro-batches.

        Raises:
            FloatingPointError: the loss or the gradient is not finite. The weights are unchanged, and a checkpoint of
                them is set aside.
            ValueError: more files turned out to be broken than allowed.
        """
        lr = self._update_lr()
        batches, discriminator_metrics = self._update_discriminator(batches)
        result = self.forward_backward(batches)
        result.metrics |= discriminator_metrics
        norm = self._clip_gradients()
        if not self.scaler.enabled:  # which skips such steps
            with self._guard.checking(self.step):
                check_finite(result.metrics, norm, self.parameters, self.step)
        result.metrics |= {"gradient_norm": norm, "lr": norm.new_tensor(lr)}
        if self.scaler.enabled:
            result.metrics["loss_scale"] = norm.new_tensor(self.scaler.scale)
        self.optimizer_step(norm)
        self.scaler.update()
        if norm.isfinite():
            self._guard.proven()
        return result

    def _update_discriminator(self, batches: Batches) -> tuple[Batches, dict[str, Tensor]]:
        """Update the discriminator if that is due first. Returns the micro-batches of the step, and metrics."""
        discriminator = self.discriminator
        if discriminator is None or not discriminator.updates_first(self.step):
            return batches, {}
        device = self.accelerator.device
        micro_batches = list(itertools.islice(batches, self.batch.gradient_accumulation_steps))
        clips = [(batch.to(device), self._step_context(i, None)) for i, (batch, _) in enumerate(micro_batches)]
        return iter(micro_batches), discriminator.update(self.objective.train(), clips, self._autocast)

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
            with sharding.gradient_sync(self.accelerator, self.objective, last=micro_step == accumulation - 1):
                with self._autocast():
                    output = self.objective(clips, context)
                self.accelerator.backward(self.scaler.scaled(output.loss / accumulation))
            metrics = {"loss": output.loss.detach(), **output.metrics}
            if discriminator is not None and discriminator.updates(self.step):
                with self._autocast():
                    loss, more = discriminator.prepared(clips, output.reconstructions, context.device_generator)
                self.accelerator.backward(self.scaler.scaled(loss / accumulation))
                metrics |= more
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value.float() / accumulation
        return StepResult(totals, data_seconds)

    def optimizer_step(self, norm: Tensor) -> None:
        """Update the weights and their moving average from the accumulated gradients of this norm."""
        accepted = self.scaler.accepts(norm)
        for optimizer in self.optimizers:
            if accepted:
                optimizer.step()
            optimizer.zero_grad()
        if self.discriminator is not None and self.discriminator.updates(self.step):
            self.discriminator.optimizer_step()
        if self.average is not None and accepted:
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            update_average(self.average, self.parameters, decay)

    def batches(self) -> OpenBatches:
        """Iterate over the micro-batches of this process, from the current step to the last; see `iterate_batches`."""
        return iterate_batches(
            self.data.train,
            self.stage.collate(self.batch.batch_size, self.batch.micro_batch_size),
            self.batch,
            ProcessRank(self.accelerator.process_index, self.accelerator.num_processes),
            range(self.step, self.length.steps),
            workers=self.config.data.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _step_context(self, micro_step: int, discriminator: DiscriminatorTrainer | None) -> StepContext:
        position = (self.step * self.batch.gradient_accumulation_steps + micro_step) * self.accelerator.num_processes
        seed = (self.config.seed << 32) + position + self.accelerator.process_index
        torch.manual_seed(seed)  # dropout
        adversarial = None if discriminator is None else discriminator.loss.reconstruction_loss
        return StepContext.seeded(
            seed, self.accelerator.device, self.step, self.step / self.length.steps, adversarial=adversarial
        )

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision != "float32"
        dtype = DTYPES[self.config.precision] if enabled else None
        return torch.autocast(self.accelerator.device.type, dtype, enabled=enabled)

    def _clip_gradients(self) -> Tensor:
        """Clip the gradients and return their norm before clipping."""
        self.scaler.unscale(self.parameters.values())
        limit = self.config.optimizer.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), math.inf if limit is None else limit)
        return sharding.gather(norm).detach()

    def _update_lr(self) -> float:
        """Set the learning rates of this step. Returns that of the weights without a multiplier."""
        factor = lr_factor(self.config.optimizer, self.step, self.length)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        if self.discriminator is not None:
            self.discriminator.scale_lr(factor)
        return self.config.optimizer.lr * factor

    def averaged_model(self) -> AnyModel:
        """Return a copy of the model on the CPU with averaged weights. Every process must call this method."""
        model: AnyModel = build_model(self.stage.kind, self.model.config.model_dump())
        model.load_state_dict(averaged_state(self.model, self.average))
        return model.eval()

    def validate(self) -> None:
        """Measure the averaged model, save samples and curves, and keep the best model so far."""
        model = self.averaged_model().to(self.accelerator.device)
        if self.accelerator.is_main_process:
            with self._signals.interruptible():
                self._validate_on_main(model)
        if self._signals.received is None:
            self.validated = self.step
        self.accelerator.wait_for_everyone()

    def _validate_on_main(self, model: AnyModel) -> None:
        measurements = self.stage.validate(model)
        if self.config.fvd_every and self.step % self.config.fvd_every == 0:
            measurements |= self.stage.measure_fvd(model)
        samples = self.stage.save_samples(model, self.folder / "samples" / f"step-{self.step:08d}")
        if measurements and math.isnan(self.stage.score(measurements)):
            with self._guard.checking(self.step):
                raise FloatingPointError(f"after step {self.step}, the outputs of the model are not finite")
        self.logger.log(self.step, measurements)
        self.logger.log_image(self.step, samples)
        plot_metrics(self.folder / "metrics.jsonl", self.folder / "metrics.png")
        best = -math.inf if self.best is None else self.best
        if measurements and (score := self.stage.score(measurements)) > best:
            self._write_model(model, self.folder / "best")
            self.best = score

    def save(self) -> None:
        """Write a checkpoint of the current step. Every process must call this method."""
        main = self.accelerator.is_main_process
        tensors = collect_tensors(self._modules, self.average, self._optimizers, keep=main)
        self.state = RunState(
            self.step,
            self.model.config.model_dump(mode="json"),
            self.stage.kind,
            self.best,
            (self.length.steps, self.length.warmup_steps),
            self.broken,
            validated=self.validated,
            loss_scale=self.scaler.state,
        )
        if main:
            save_checkpoint(self.folder, tensors, self.state)
        self._guard.saved()
        self.accelerator.wait_for_everyone()

    def export(self) -> AnyModel:
        """Write the averaged model and its card to the folder `model` of the run."""
        model = self.averaged_model()
        if self.accelerator.is_main_process:
            model = self.stage.finish(model)
            self._write_model(model, self.folder / "model")
            mark_exported(self.folder)
        self.accelerator.wait_for_everyone()  # no process ends while files are being written
        return model

    def _write_model(self, model: AnyModel, folder: Path) -> None:
        """Write a model folder with its card."""
        write_folder(model, folder)
        batch_size = self.batch.batch_size
        write_model_card(folder, model, self.config, self.folder, steps=self.step, batch_size=batch_size)

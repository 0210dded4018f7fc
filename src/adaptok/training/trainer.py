"""The training loop that every stage shares; what differs between them is in `stages`.

A step is a function of the configuration, the seed and its number: clips are indexed by position, random numbers are
seeded from the step. So a run that is stopped and resumed is the run that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.optimization import RunConfig
from adaptok.config.training import AnyConfig, dump_config
from adaptok.training import checkpoint, sharding
from adaptok.training.checkpoint import AnyModel
from adaptok.training.data import Batch
from adaptok.training.losses import Adversary
from adaptok.training.objectives import Draw
from adaptok.training.reporting import plot_metrics
from adaptok.training.schedule import learning_rate_factor, run_length
from adaptok.training.stages import AnyData, build_stage
from adaptok.training.token_data import TokenBatch
from adaptok.utils.files import replacing


class Run:
    """One training run in a folder.

    Args:
        config: what to do.
        data: clips, or rows of a generator.
        folder: configuration, metrics, checkpoints and the exported model go here.
        report: called with each logged line of metrics.

    Raises:
        ValueError: the folder holds a run of another configuration.
    """

    def __init__(
        self,
        config: AnyConfig,
        data: AnyData,
        folder: Path,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.accelerator = _accelerator(config, folder)
        processes = self.accelerator.num_processes
        self.given, self.batch_plan = config, config.batch_plan(processes)
        config = config.with_batch_plan(processes)
        self.config, self.data, self.folder, self.report = config, data, folder, report
        self.broken = dict(data.broken)
        folder.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            self._claim_folder()
        self.accelerator.wait_for_everyone()
        found = checkpoint.folders(folder)
        state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8")) if found else {}
        # the plan of a run that goes on does not change with the number of files or processes
        self.steps: int
        self.warmup: int
        self.steps, self.warmup = state.get("plan") or run_length(config, data.files, processes)
        self.stage = build_stage(config, data, self.accelerator.device)
        model = self.stage.again(state["model"]) if found else self.stage.start()
        self.model: AnyModel = model.to(self.accelerator.device)
        self.stage.prepare(self.model)
        self._prepare_objective()
        self._prepare_adversary()
        self.average = {n: p.detach().clone() for n, p in self.parameters.items()} if config.ema_decay else None
        self.step, self.best = 0, -math.inf
        if found:
            checkpoint.restore(found[-1], self._modules, self.average, self._optimizers)
            self.step, self.best = int(state["step"]), float(state["best"])
            self.broken |= state.get("broken", {})
        if self.accelerator.is_main_process:
            self._trim_metrics()
        self.accelerator.init_trackers("adaptok", config=None)

    def _prepare_objective(self) -> None:
        objective = self.stage.objective(self.model)
        if self.config.sharding:
            sharding.shard(objective, self.accelerator.device, self.accelerator.num_processes)
        self.parameters = dict(objective.trained())
        self._modules: dict[str, nn.Module] = {"model": self.model}
        self._optimizers = self.stage.optimizers(self.parameters)
        self.optimizers = [self.accelerator.prepare(optimizer) for optimizer in self._optimizers.values()]
        self.objective = objective if self.config.sharding else self.accelerator.prepare(objective)

    def _prepare_adversary(self) -> None:
        torch.manual_seed(self.config.seed + 1)
        self._critic = self.stage.critic()
        self._adversary: Adversary | None = None
        if self._critic is None:
            return
        self._adversary = self._critic.adversary.to(self.accelerator.device)
        settings = self._adversary.config
        optimizer = torch.optim.AdamW(
            self._adversary.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=0.0
        )
        self._modules["adversary"] = self._adversary
        self._optimizers["adversary-optimizer"] = optimizer
        self.critic, self.critic_optimizer = self.accelerator.prepare(self._adversary, optimizer)

    def _claim_folder(self) -> None:
        path, text = self.folder / "config.yaml", dump_config(self.given)
        if path.exists() and not self._is_claimed(path):
            raise ValueError(f"{self.folder} holds a run of another configuration; choose another folder or remove it")
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _is_claimed(self, path: Path) -> bool:
        """Whether the file holds this configuration; fields that are new since then have their defaults."""
        try:
            earlier = type(self.config).load(path).with_batch_plan(self.accelerator.num_processes)
            return earlier == self.config
        except ValueError:
            return False

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

    def batches(self) -> Iterator[Batch | TokenBatch]:
        """This process's batches from the current step to the last."""
        processes, plan = self.accelerator.num_processes, self.batch_plan
        per_step, size = plan.batch_size, plan.micro_batch_size
        rank = self.accelerator.process_index

        def order() -> Iterator[list[int]]:
            for step in range(self.step, self.steps):
                for micro in range(plan.gradient_accumulation_steps):
                    first = step * per_step + (micro * processes + rank) * size
                    yield list(range(first, first + size))

        loader: DataLoader[Any] = DataLoader(
            self.data.train,
            batch_sampler=_Lazy(order),
            num_workers=self.config.data.workers,
            collate_fn=self.stage.collate(per_step),
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return iter(loader)

    def train(self) -> AnyModel:
        """Run to the last step and return the exported model."""
        batches, started, logged = self.batches(), time.monotonic(), self.step
        waited = 0.0
        while self.step < self.steps:
            metrics, waiting = self.train_step(batches)
            waited += waiting
            self.step += 1
            last = self.step == self.steps
            if self.step % self.config.log_every == 0 or last:
                clips = (self.step - logged) * self.batch_plan.batch_size
                elapsed = time.monotonic() - started
                values = {name: self._mean(value) for name, value in metrics.items()}
                speed = {
                    "clips_per_second": clips / elapsed,
                    "waiting_for_data": waited / elapsed,
                }
                self._log({**values, **speed})
                started, logged, waited = time.monotonic(), self.step, 0.0
            if self.step % self.config.validate_every == 0 or last:
                self._validate()
            if self.step % self.config.checkpoint_every == 0 or last:
                self.save()
        self._name_broken()
        model = self.export()
        self.accelerator.end_training()  # which parts the processes
        return model

    def _mean(self, value: Tensor) -> float:
        """Over all processes."""
        return float(self.accelerator.reduce(value.float(), "mean"))

    def train_step(self, batches: Iterator[Batch | TokenBatch]) -> tuple[dict[str, Tensor], float]:
        """One step; returns its metrics, and the seconds that it waited for clips.

        Raises:
            FloatingPointError: the loss or the gradient is not a number; the weights are as they were.
            ValueError: more files turned out to be broken than may be.
        """
        config, accelerator = self.config, self.accelerator
        accumulation = self.batch_plan.gradient_accumulation_steps
        factor = learning_rate_factor(config.optimizer, self.step, self.steps, self.warmup)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        self.objective.train()
        critic = self._critic if self._critic is not None and self.step >= self._critic.start else None
        criticise = critic is not None and self.step % critic.adversary.config.update_interval == 0
        metrics: dict[str, Tensor] = {}
        waited = 0.0
        for micro in range(accumulation):
            started = time.monotonic()
            batch, broken = next(batches)
            clips = batch.to(accelerator.device, non_blocking=True)
            waited += time.monotonic() - started
            if broken:
                self.broken |= broken
                self.stage.check_broken(self.broken)
            draw = self._draw(micro)
            maker = None if critic is None else critic.adversary.of_maker
            with self._gradients(last=micro == accumulation - 1):
                with self._autocast():
                    outcome = self.objective(clips, draw, self.step, self.step / self.steps, maker)
                self._check(outcome.loss, outcome.metrics)
                accelerator.backward(outcome.loss / accumulation)
            metrics = {"loss": outcome.loss.detach(), **outcome.metrics}
            if criticise:
                with self._autocast():
                    loss, more_metrics = self.critic(clips, outcome.prediction, draw.device)
                self._check(loss, more_metrics)
                accelerator.backward(loss / accumulation)
                metrics |= more_metrics
        limit = math.inf if config.optimizer.max_grad_norm is None else config.optimizer.max_grad_norm
        norm = sharding.whole(accelerator.clip_grad_norm_(self.parameters.values(), limit))
        self._check_gradient(norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if criticise:
            self.critic_optimizer.step()
            self.critic_optimizer.zero_grad()
        self._update_average()
        return {**metrics, "gradient_norm": norm.detach(), "rate": norm.new_tensor(factor)}, waited

    def _autocast(self) -> torch.autocast:
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=half)

    def _gradients(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are added up over processes with the last batch of a step only."""
        if self.config.sharding:
            sharding.synchronize(self.objective, last)
            return nullcontext()
        context: AbstractContextManager[None] = nullcontext() if last else self.accelerator.no_sync(self.objective)
        return context

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
        position = (self.step * self.batch_plan.gradient_accumulation_steps + micro) * self.accelerator.num_processes
        seed = (self.config.seed << 32) + position + self.accelerator.process_index
        torch.manual_seed(seed)  # dropout
        return Draw(torch.Generator().manual_seed(seed), torch.Generator(self.accelerator.device).manual_seed(seed))

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        averages = [sharding.local(average) for average in self.average.values()]
        torch._foreach_lerp_(averages, [sharding.local(p.detach()) for p in self.parameters.values()], 1 - decay)

    def _log(self, values: dict[str, Any]) -> None:
        line = {"step": self.step, **values}
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.accelerator.log({k: v for k, v in line.items() if k != "step"}, step=self.step)
            if self.report is not None:
                self.report(line)

    def averaged(self) -> AnyModel:
        """A copy of the model, on the CPU, with the moving average as its weights; every process must ask."""
        model: AnyModel = checkpoint.build(self.stage.kind, self.model.config.model_dump())
        weights = {name: sharding.whole(t.detach()).cpu() for name, t in self.model.state_dict().items()}
        if self.average is not None:
            weights |= {name: sharding.whole(t).cpu() for name, t in self.average.items()}
        model.load_state_dict(weights)
        return model.eval()

    def _validate(self) -> None:
        """Measure, draw, and keep the best model so far."""
        model = self.averaged().to(self.accelerator.device)
        if self.accelerator.is_main_process:
            values = self.stage.figures(model)
            self._log(values)
            plot_metrics(self.folder / "metrics.jsonl", self.folder / "metrics.png")
            self.stage.draw(model, self.folder / "samples" / f"step-{self.step:08d}")
            if values and (value := self.stage.value(values)) > self.best:
                self.best = value
                write_folder(model, self.folder / "best")
        self.accelerator.wait_for_everyone()

    def _name_broken(self) -> None:
        """List the files that could not be read, those that any process found."""
        everyone = gather_object([self.broken])
        self.broken = {path: why for part in everyone for path, why in part.items()}
        if self.broken and self.accelerator.is_main_process:
            with replacing(self.folder / "broken.json") as path:
                path.write_text(json.dumps(dict(sorted(self.broken.items())), indent=2), encoding="utf-8")
            if self.report is not None:
                self.report({"step": self.step, "broken_files": len(self.broken)})

    def save(self) -> None:
        """Write a checkpoint of the current step; every process must ask."""
        main = self.accelerator.is_main_process
        tensors = checkpoint.collect(self._modules, self.average, self._optimizers, keep=main)
        if main:
            extra = {
                "kind": self.stage.kind,
                "model": self.model.config.model_dump(mode="json"),
                "best": self.best,
                "plan": [self.steps, self.warmup],
                "broken": self.broken,
            }
            checkpoint.save(self.folder, self.step, tensors, extra, self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def export(self) -> AnyModel:
        """Write the averaged model as a model folder, `RUN/model`."""
        model = self.averaged()
        if self.accelerator.is_main_process:
            model = self.stage.finish(model)
            write_folder(model, self.folder / "model")
            self.stage.write_card(self.folder, self.step, self.batch_plan.batch_size)
        self.accelerator.wait_for_everyone()  # nobody leaves while files are being written
        return model


class _Lazy:
    """An iterable that begins anew each time: batches of a long run are not listed in advance."""

    def __init__(self, begin: Callable[[], Iterator[list[int]]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[list[int]]:
        return self._begin()


def _accelerator(config: RunConfig, folder: Path) -> Accelerator:
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ValueError("accelerate is configured for FSDP; set sharding: true (--sharding) in the run instead")
    accelerator = Accelerator(
        mixed_precision="no",  # it would hold for every run of a process; see Run._autocast
        cpu=not torch.cuda.is_available(),
        log_with=list(config.trackers) or None,
        project_dir=folder,
    )
    if config.sharding and accelerator.num_processes == 1:
        raise ValueError("sharding is over processes, and there is one; start with: torchrun --nproc-per-node N")
    return accelerator

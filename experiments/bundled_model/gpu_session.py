"""What the stages of training on one GPU share: the model, the data, the record of figures and the optimization."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from gpu_clips import PROCESSES, FrameStore, ViewBatches, render
from torch import Tensor, nn

from adaptok.checkpoints.model_folder import read_folder
from adaptok.config.optimization import OptimizerConfig
from adaptok.models.model import Model
from adaptok.training.averaging import update_average
from adaptok.training.optim import build_optimizers, layer_weights

WARMUP_STEPS = 200
FINAL_RATIO = 0.01
"""Learning rate at the end of a stage, as a fraction of its peak."""


class Session:
    """One run of one or more stages.

    Attributes:
        options: command line options.
        device: device of the model.
        compiled: whether modules are compiled, and computed in bfloat16: on a GPU.
        flex: whether FlexAttention is used.
        model: tokenizer and scorer, as trained so far.
        rng: random numbers on the device.
        store: frames of the training data, decoded on first use.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.started = options, time.monotonic()
        self.device = torch.device(options.device)
        self.compiled = self.device.type == "cuda"
        self.flex = self.compiled and not options.sdpa
        PROCESSES.set_forkserver_preload(["gpu_clips"])
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        options.out.mkdir(parents=True, exist_ok=True)
        self.model = read_folder(options.initial).build().to(self.device).train()
        self.rng = torch.Generator(self.device).manual_seed(71)

    @cached_property
    def store(self) -> FrameStore:
        options = self.options
        store = FrameStore.build(options.data, options.drawings, options.workers, self.device)
        self.log("frames", gibibytes=store.values.numel() / 2**30, videos=len(store.videos))
        return store

    def log(self, event: str, **figures: Any) -> None:
        """Append figures to the record and print them."""
        values = {name: float(f"{float(value):.6g}") for name, value in figures.items()}
        record = {"event": event, "seconds": round(time.monotonic() - self.started, 1), **values}
        with (self.options.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)

    def compile(self, function: Any) -> Any:
        """Compile a function on a GPU."""
        return torch.compile(function) if self.compiled else function

    def autocast(self) -> torch.autocast:
        """Compute in bfloat16 on a GPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compiled)

    def clips(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Yield batches of training clips `[B, 3, T, S, S]`."""
        loader: Any = torch.utils.data.DataLoader(
            ViewBatches(self.store, batch_size, seed),
            batch_size=None,
            sampler=range(10_000_000),
            num_workers=max(1, self.options.workers * 2 // 3),
            pin_memory=self.compiled,
            prefetch_factor=4,
            multiprocessing_context=PROCESSES,
        )
        draw = self.compile(render)
        for views in loader:
            yield draw(self.store.values, *(array.to(self.device, non_blocking=True) for array in views))

    def draw_lengths(self, batch_size: int, low: int = 8) -> Tensor:
        """Draw lengths int64 `[B, G]` of at least `low`: a quarter of the clips at full length, half with uniform
        lengths up to 192 or 64, and a quarter as an allocation tends to choose them, with a long first block."""
        c = self.model.config.tokenizer

        def random(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self.rng, device=self.device)

        kind, shares = random(batch_size, 1), random(batch_size, c.blocks)
        wide, narrow = low + shares * (c.latents - low), low + shares * (64 - low)
        base = low + random(batch_size, 1).square() * (c.latents / 2 - low)
        first = torch.arange(c.blocks, device=self.device) == 0
        allocated = base * torch.where(first, 1.5 + 2 * shares, 0.4 + 1.2 * shares)
        lengths = torch.where(kind < 0.75, torch.where(kind < 0.55, wide, narrow), allocated)
        lengths = torch.where(kind < 0.25, float(c.latents), lengths)
        return lengths.round().long().clamp(low, c.latents)

    def with_weights(self, weights: Mapping[str, Tensor]) -> Model:
        """Return a copy of the model with some weights replaced."""
        model = Model(self.model.config).to(self.device).eval()
        model.load_state_dict({**self.model.state_dict(), **weights})
        return model


class Optimization:
    """Optimizers, a learning rate schedule over seconds, and a moving average of the weights.

    The warm-up is followed by a cosine over the seconds of the stage. The first ten steps, which compile, do not count.

    Args:
        model: model that is trained.
        prefix: prefix of the names of the weights that are trained.
        config: optimizers; the lengths of its schedule are not used.
        seconds: length of the stage.
        decay: decay of the moving average.
        linear_prefixes: as for `build_optimizers`.

    Attributes:
        average: averaged weights by name.
        steps: number of steps taken.
    """

    def __init__(
        self,
        model: nn.Module,
        prefix: str,
        config: OptimizerConfig,
        seconds: float,
        decay: float,
        linear_prefixes: tuple[str, ...] = (),
    ) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if name.startswith(prefix)}
        self.optimizers = build_optimizers(config, self.parameters, linear_prefixes, layer_weights(model))
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.seconds, self.decay, self.steps = seconds, decay, 0
        self._started = self._lapped = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the first counted step."""
        return time.monotonic() - self._started

    @property
    def finished(self) -> bool:
        """Whether the stage is over."""
        return self.elapsed >= self.seconds

    def step(self, loss: Tensor) -> Tensor:
        """Take a step and return the norm of the gradient."""
        progress = min(1.0, self.elapsed / self.seconds)
        factor = FINAL_RATIO + (1 - FINAL_RATIO) * (1 + math.cos(math.pi * progress)) / 2
        for group in (group for optimizer in self.optimizers.values() for group in optimizer.param_groups):
            group["lr"] = group["initial_lr"] * factor * min(1.0, (self.steps + 1) / WARMUP_STEPS)
        loss.backward()
        norm = clip_gradients(self.parameters)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        update_average(self.average, self.parameters, min(self.decay, (1 + self.steps) / (10 + self.steps)))
        self.steps += 1
        if self.steps == 10:
            if norm.is_cuda:
                torch.cuda.synchronize()
            self._started = self._lapped = time.monotonic()
        return norm

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        now = time.monotonic()
        seconds, self._lapped = now - self._lapped, now
        return max(seconds, 1e-9)


def clip_gradients(parameters: Mapping[str, nn.Parameter], limit: float = 1.0) -> Tensor:
    """Clip the norm of the gradients and return it. Gradients that are not finite become zero."""
    gradients = [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    if not norm.isfinite():
        for gradient in gradients:
            gradient.zero_()
    return norm

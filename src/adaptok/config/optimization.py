"""Configuration of optimizers, schedules, batches and everything else that all training stages share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AliasChoices, Field, field_validator, model_validator

from adaptok.config.base import Config, Fraction01, Positive
from adaptok.config.choices import DType

DEFAULT_BATCH_SIZE = 8
MAX_EPOCHS = 1e6
"""Bound of lengths in epochs, so that they are finite as numbers of steps."""
RunT = TypeVar("RunT", bound="RunConfig")


class OptimizerConfig(Config):
    """Optimizer and learning rate schedule."""

    kind: Literal["adamw", "muon"] = "adamw"
    """Optimizer. 'muon' applies orthogonalized updates, scaled to the size of AdamW's, to the matrices of transformer
    layers and the kernels of residual convolutions; all other weights use AdamW."""
    lr: Annotated[float, Field(gt=0.0, validation_alias=AliasChoices("lr", "learning_rate"))] = 3e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's moving averages of the gradient and of its square."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled weight decay, multiplied by the learning rate. With 0, AdamW is Adam."""
    decay_vectors: bool = True
    """Also apply weight decay to norms and biases. Otherwise, only matrices and embeddings decay."""
    decay_embeddings: bool = True
    """Also apply weight decay to embeddings, positions and codebooks. If this and `decay_vectors` are off, only the
    weights of linear layers and convolutions decay."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Number of steps over which the learning rate rises linearly to its peak."""
    warmup_epochs: Annotated[float, Field(ge=0.0, le=MAX_EPOCHS)] | None = None
    """Length of the warm-up in epochs. Replaces `warmup_steps` in runs whose length is given in epochs."""
    initial_lr_ratio: Fraction01 | None = None
    """Fraction of the peak learning rate that the warm-up starts from. The peak is then reached in the last step of the
    warm-up, and `final_lr_ratio` in the last step of the run, as in the official program. By default, the first step
    has 1/warmup_steps of the peak, and the step after the warm-up is the first to decay."""
    final_lr_ratio: Annotated[Fraction01, Field(validation_alias=AliasChoices("final_lr_ratio", "final_ratio"))] = 0.02
    """Learning rate at the last step, as a fraction of the peak."""
    max_grad_norm: Annotated[
        Annotated[float, Field(gt=0.0)] | None, Field(validation_alias=AliasChoices("max_grad_norm", "clip_norm"))
    ] = 1.0
    """Norm to which larger gradients are clipped. Null disables clipping."""
    prior_lr_multiplier: Annotated[
        float, Field(gt=0.0, validation_alias=AliasChoices("prior_lr_multiplier", "prior_multiplier"))
    ] = 50.0
    """Learning rate of the prior, as a multiple of `lr`. The official scripts give the default, but their program
    overwrites it with 1."""
    linear_lr_multiplier: Annotated[
        float, Field(ge=0.0, validation_alias=AliasChoices("linear_lr_multiplier", "written_multiplier"))
    ] = 0.1
    """Learning rate of the weights set by a linear initialization, as a multiple of `lr`. 0 freezes them."""


class BatchPlan(NamedTuple):
    """Sizes of the batches of one step."""

    batch_size: int
    """Clips per step, over all processes."""
    micro_batch_size: int
    """Clips per forward and backward pass of one process."""
    gradient_accumulation_steps: int
    """Forward and backward passes per step."""


class RunConfig(Config):
    """Settings of a training run of any stage. Subclasses add `stage`, `model` and `data`."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and learning rate schedule."""
    max_steps: Annotated[Positive | None, Field(validation_alias=AliasChoices("max_steps", "steps"))] = None
    """Number of optimizer steps. Give either this or `epochs`."""
    epochs: Annotated[float, Field(gt=0.0, le=MAX_EPOCHS)] | None = None
    """Number of epochs, an alternative to `max_steps`. An epoch has one clip of each file or, for a token dataset, all
    of its clips; with `data.sampling videos`, it has one clip of each video."""
    batch_size: Positive | None = None
    """Number of clips per optimizer step, over all processes and accumulation steps. By default it follows from
    `micro_batch_size`, or is 8 if that is not given either."""
    micro_batch_size: Annotated[Positive | None, Field(validation_alias=AliasChoices("micro_batch_size", "batch"))] = (
        None
    )
    """Number of clips per forward and backward pass of one process. By default it follows from `batch_size`. Lower it
    if memory runs out; gradients are then accumulated."""
    gradient_accumulation_steps: Annotated[
        Positive | None, Field(validation_alias=AliasChoices("gradient_accumulation_steps", "accumulation"))
    ] = None
    """Number of micro-batches per optimizer step. By default it follows from the batch sizes, or is 1."""
    precision: DType = "bfloat16"
    """DType of the computation. Weights are always kept in float32. With float16, the loss is scaled, and steps
    whose gradients overflow are skipped."""
    compile: bool = False
    """Compile those parts of the layers whose shapes do not depend on lengths, with torch.compile."""
    activation_checkpointing: bool = False
    """Keep only the input of each layer and recompute the rest in the backward pass. Saves memory and costs about a
    third more computation."""
    sharding: bool = False
    """Shard weights, gradients and optimizer state over the processes (FSDP), for models that exceed one device."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the moving average of the weights, which is what is validated and exported. 0 disables it."""
    seed: int = 0
    """Seed of all random numbers: clips, lengths, sampled ids and initial weights."""
    log_every: Positive = 20
    """Number of steps between lines of metrics."""
    validate_every: Positive = 500
    """Number of steps between validations, each of which also writes samples and curves."""
    fvd_every: Annotated[int, Field(ge=0)] = 0
    """Number of steps between measurements of FVD on the validation clips, a multiple of `validate_every`. 0 disables
    it. Few clips give a biased FVD, which is only comparable within a run."""
    i3d_weights: str | None = None
    """I3D weights for FVD, as for 'adaptok evaluate'. By default, those that an evaluation has downloaded."""
    checkpoint_every: Positive = 500
    """Number of steps between checkpoints. An interrupted run repeats the steps after the last one."""
    keep_checkpoints: Positive = 2
    """Number of most recent checkpoints to keep. The model with the best validation result is kept separately."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Experiment trackers that metrics are sent to, in addition to metrics.jsonl. 'none' uses no tracker."""

    @field_validator("trackers", mode="before")
    @classmethod
    def _no_trackers(cls, value: Any) -> Any:
        return () if value in (None, "none", ["none"], ("none",)) else value

    @model_validator(mode="before")
    @classmethod
    def _keep_old_batch(cls, values: Any) -> Any:
        """Read the default batch of old files per process, as they meant it."""
        batch_keys = {"batch_size", "micro_batch_size", "batch"}
        if isinstance(values, Mapping) and values.keys() & {"steps", "accumulation"} and not values.keys() & batch_keys:
            return {**values, "micro_batch_size": DEFAULT_BATCH_SIZE}
        return values

    @model_validator(mode="after")
    def _check_run(self) -> RunConfig:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError(f"max_steps is {self.max_steps} and epochs is {self.epochs}; give exactly one of them")
        if self.optimizer.warmup_epochs is not None and self.epochs is None:
            raise ValueError(
                f"optimizer.warmup_epochs {self.optimizer.warmup_epochs:g} needs a length in epochs; give"
                " optimizer.warmup_steps together with max_steps"
            )
        if self.fvd_every % self.validate_every:
            raise ValueError(
                f"fvd_every {self.fvd_every} is not a multiple of validate_every {self.validate_every}; FVD is measured"
                " in validations"
            )
        if self.optimizer.kind == "muon" and self.sharding:
            raise ValueError("optimizer.kind muon does not work with sharding; set optimizer.kind to adamw")
        self._check_divisible(1)
        return self

    def batch_plan(self, processes: int) -> BatchPlan:
        """Derive the batch sizes that are not given from those that are.

        Args:
            processes: number of training processes.

        Raises:
            ValueError: `batch_size` is not `micro_batch_size` times `processes` times `gradient_accumulation_steps`.
        """
        size, micro, accumulation = self.batch_size, self.micro_batch_size, self.gradient_accumulation_steps
        if size is None and micro is not None:
            return BatchPlan(micro * processes * (accumulation or 1), micro, accumulation or 1)
        self._check_divisible(processes)
        size = size or DEFAULT_BATCH_SIZE
        if micro is None:
            micro = size // (processes * (accumulation or 1))
        plan = BatchPlan(size, micro, accumulation or size // (processes * micro))
        if (product := plan.micro_batch_size * processes * plan.gradient_accumulation_steps) != size:
            raise ValueError(
                f"batch_size {size} differs from micro_batch_size {micro} x processes {processes} x"
                f" gradient_accumulation_steps {accumulation} = {product}; leave one of the three out to derive it"
            )
        return plan

    @property
    def pass_size(self) -> int:
        """Clips per forward pass of one process: `micro_batch_size`, or what it is for a single process."""
        return self.micro_batch_size or self.batch_plan(1).micro_batch_size

    def _check_divisible(self, processes: int) -> None:
        size, unit = self.batch_size or DEFAULT_BATCH_SIZE, processes
        factors = [f"processes {processes}"] if processes > 1 else []
        for name in ("micro_batch_size", "gradient_accumulation_steps"):
            if (value := getattr(self, name)) is not None:
                unit *= value
                factors.append(f"{name} {value}")
        if size % unit and (self.batch_size is not None or self.micro_batch_size is None):
            below, above = size // unit * unit, (size // unit + 1) * unit
            raise ValueError(
                f"batch_size {size} is not a multiple of {' x '.join(factors)};"
                f" set batch_size to {f'{below} or ' if below else ''}{above}"
            )

    def with_batch_plan(self: RunT, processes: int) -> RunT:
        """Return a copy in which all batch sizes are given."""
        return self.model_copy(update=self.batch_plan(processes)._asdict())

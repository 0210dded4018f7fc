"""Models that runs start from, with random or linear weights, or those of a model folder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import track
from torch import Tensor

from adaptok.checkpoints.hub import resolve
from adaptok.checkpoints.model_folder import read_folder
from adaptok.config.training import TrainingConfig
from adaptok.config.transformer import StackConfig
from adaptok.models.model import Model
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.clip_data import ClipData
from adaptok.training.initialization.linear_codec import initialize_linear
from adaptok.training.initialization.output_fit import fit_output_layer
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import ScorerObjective, draw_lengths

GROWING = ("encoder_window", "decoder_window", "stem", "head")
"""Options of a tokenizer that its source may lack, and that growing adds."""


@torch.no_grad()
def grow(tokenizer: Tokenizer, source: Tokenizer) -> None:
    """Copy the weights of `source` into `tokenizer`, so that both compute the same function.

    `tokenizer` may have overlapping windows, a stem or a head that `source` lacks. New windows hold the weights of the
    patch in the middle and zeros around it; a new stem or head keeps its initialization, whose output is 0.

    Raises:
        ValueError: the configurations differ in any other way.
    """
    ours, theirs = tokenizer.config, source.config
    for name in type(ours).model_fields:
        old, new = getattr(theirs, name), getattr(ours, name)
        if isinstance(old, StackConfig) and old != new:
            field = next(f for f in type(old).model_fields if getattr(old, f) != getattr(new, f))
            name, old, new = f"{name}.{field}", getattr(old, field), getattr(new, field)
        if old != new and not (name in GROWING and old is None):
            raise ValueError(f"{name} is {old} there and {new} here; set both to the same value")
    state = dict(source.state_dict())
    frames, colours = ours.temporal_patch_size, ours.channels
    if (inner := tokenizer.encoder_taper) is not None and source.encoder_taper is None:
        weight = state["patch_embedding.weight"].view(-1, colours * frames, ours.patch_size, ours.patch_size)
        state["patch_embedding.weight"] = _surround(weight, inner).flatten(1)
    if (inner := tokenizer.decoder_taper) is not None and source.decoder_taper is None:
        for name in ("to_pixels.weight", "to_pixels.bias"):
            shape = (frames, ours.patch_size, ours.patch_size, -1)  # last dimension: C of the bias, C * D of the weight
            values = state[name].view(shape).permute(0, 3, 1, 2)
            state[name] = _surround(values, inner).permute(0, 2, 3, 1).reshape(-1, *state[name].shape[1:])
    new_parts = {name: t for name, t in tokenizer.state_dict().items() if name not in state}
    tokenizer.load_state_dict({**new_parts, **state})


def _surround(values: Tensor, taper: Tensor) -> Tensor:
    """Pad weights `[..., p, p]` with zeros to `[..., w, w]`, divided by the taper that the tokenizer multiplies by."""
    margin = (taper.shape[-1] - values.shape[-1]) // 2
    inside = slice(margin, margin + values.shape[-1])
    whole = values.new_zeros(*values.shape[:-2], *taper.shape)
    whole[..., inside, inside] = values / taper[inside, inside]
    return whole


PCA_CLIPS = 256
"""Clips whose principal components a linear initialization uses."""
STATISTICS_BATCHES = 16
"""Batches over which the targets of a scorer are measured before training."""


def new_model(config: TrainingConfig, data: ClipData) -> Model:
    """Create the model that a run starts from, with random weights, linear weights or those of a model folder."""
    torch.manual_seed(config.seed)
    model = _random_or_linear(config, data) if config.initial is None else load_initial(config)
    if config.fit_output_clips:
        fit_output_layer(model.tokenizer, _fitting_batches(config, data))
    return model


def _random_or_linear(config: TrainingConfig, data: ClipData) -> Model:
    model = Model(config.model)
    if config.initialization == "linear":
        clips = torch.stack([data.train[i] for i in range(PCA_CLIPS)])
        plain = Tokenizer(config.model.tokenizer.model_copy(update=dict.fromkeys(GROWING)))
        initialize_linear(plain, clips)
        grow(model.tokenizer, plain)
    return model


def _fitting_batches(config: TrainingConfig, data: ClipData) -> Iterator[tuple[Tensor, list[list[int]]]]:
    """Yield the first clips of a run, with lengths drawn as in training."""
    generator = torch.Generator().manual_seed(config.seed)
    blocks = config.model.tokenizer.blocks
    starts = range(0, config.fit_output_clips, config.pass_size)
    console = Console(stderr=True)
    for start in track(starts, "fitting the output layer", console=console, disable=not console.is_terminal):
        stop = min(start + config.pass_size, config.fit_output_clips)
        clips = torch.stack([data.train[i] for i in range(start, stop)])
        yield clips, draw_lengths(config.lengths, len(clips), blocks, generator)


def load_initial(config: TrainingConfig) -> Model:
    """Create the model of a run with the weights of its `initial` model.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the model has another configuration than the run.
    """
    assert config.initial is not None
    source = read_folder(resolve(config.initial)).build()
    model = Model(config.model)
    try:
        grow(model.tokenizer, source.tokenizer)
    except ValueError as error:
        raise ValueError(
            f"the tokenizer in {config.initial} has another configuration than this run: {error}"
        ) from None
    if source.scorer is not None and source.config.scorer == config.model.scorer:
        assert model.scorer is not None
        model.scorer.load_state_dict(source.scorer.state_dict())
    return model


def measure_targets(
    model: Model, config: TrainingConfig, data: ClipData, networks: LpipsNetworks, device: torch.device
) -> Model:
    """Return the model with a scorer that is normalized by the statistics of true distortions on training clips.

    Only the main process measures them, on its device. Every process must call this function.

    Args:
        model: model to start from.
        config: configuration of the run.
        data: training clips.
        networks: networks for LPIPS, on the device.
        device: device to measure on.
    """
    assert config.model.scorer is not None
    if dist.is_available() and dist.is_initialized():
        values = torch.zeros(2, device=device)
        if dist.get_rank() == 0:
            values.copy_(_target_statistics(model, config, data, networks, device))
        dist.broadcast(values, 0)
    else:
        values = _target_statistics(model, config, data, networks, device)
    mean, std = (round(value, 6) for value in values.tolist())
    scorer = config.model.scorer.model_copy(update={"mean": mean, "std": std})
    final = Model(config.model.model_copy(update={"scorer": scorer}))
    final.load_state_dict(model.state_dict())
    return final


def _target_statistics(
    model: Model, config: TrainingConfig, data: ClipData, networks: LpipsNetworks, device: torch.device
) -> Tensor:
    """Measure the mean and the standard deviation `[2]` of the distortions that a scorer learns to predict."""
    assert config.model.scorer is not None
    unit = {"mean": 0.0, "std": 1.0}
    probe_config = config.model.model_copy(update={"scorer": config.model.scorer.model_copy(update=unit)})
    probe = Model(probe_config)
    probe.load_state_dict(model.state_dict())
    probe.to(device)
    objective = ScorerObjective(probe, config, networks)
    values = []
    with torch.inference_mode():
        for batch in range(STATISTICS_BATCHES):
            generator = torch.Generator().manual_seed(batch)
            clips = torch.stack([data.train[batch * config.pass_size + i] for i in range(config.pass_size)])
            targets = objective.measure(clips.to(device), batch % model.config.tokenizer.blocks, generator)
            assert probe.scorer is not None
            values.append(probe.scorer.normalize(targets.distortions).flatten())
    distortions = torch.cat(values)
    return torch.stack([distortions.mean(), distortions.std()])

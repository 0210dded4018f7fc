"""Models that runs start from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from adaptok.checkpoints.model_folder import read_folder
from adaptok.config.training import TrainingConfig
from adaptok.models.model import Model
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.clip_data import ClipData
from adaptok.training.initialization.growing import GROWING, grow
from adaptok.training.initialization.linear_codec import initialize_linear
from adaptok.training.initialization.output_fit import fit_output_layer
from adaptok.training.objectives.lengths import draw_lengths
from adaptok.training.objectives.perceptual import LpipsNetworks
from adaptok.training.objectives.scorer import ScorerObjective

PCA_CLIPS = 256
"""Clips whose principal components a linear initialization uses."""
STATISTICS_BATCHES = 16
"""Batches over which the targets of a scorer are measured before training."""


def new_model(config: TrainingConfig, data: ClipData) -> Model:
    """Create the model that a run starts from, with random weights, linear weights or those of a model folder."""
    torch.manual_seed(config.seed)
    model = _random_or_linear(config, data) if config.initial is None else _from_folder(config)
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


def _from_folder(config: TrainingConfig) -> Model:
    assert config.initial is not None
    source = read_folder(config.initial).build()
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


def measure_targets(model: Model, config: TrainingConfig, data: ClipData, networks: LpipsNetworks) -> Model:
    """Return the model with a scorer that is normalized by the statistics of true distortions on training clips."""
    assert model.scorer is not None
    assert config.model.scorer is not None
    unit = {"mean": 0.0, "std": 1.0}
    probe_config = config.model.model_copy(update={"scorer": config.model.scorer.model_copy(update=unit)})
    probe = Model(probe_config)
    probe.load_state_dict(model.state_dict())
    objective = ScorerObjective(probe, config, networks)
    values = []
    with torch.inference_mode():
        for batch in range(STATISTICS_BATCHES):
            generator = torch.Generator().manual_seed(batch)
            clips = torch.stack([data.train[batch * config.pass_size + i] for i in range(config.pass_size)])
            block = batch % model.config.tokenizer.blocks
            lengths = torch.randint(1, model.config.tokenizer.latents + 1, (block,), generator=generator).tolist()
            clips = clips[:, :, : (block + 1) * model.config.tokenizer.temporal_patch_size]
            inputs = probe.tokenizer.project_codes(probe.tokenizer.quantize(probe.tokenizer.encode(clips)).codes)
            assert probe.scorer is not None
            values.append(probe.scorer.normalize(objective.measure_distortions(clips, inputs, lengths)).flatten())
    distortions = torch.cat(values)
    measured = {"mean": round(distortions.mean().item(), 6), "std": round(distortions.std().item(), 6)}
    scorer = config.model.scorer.model_copy(update=measured)
    final = Model(config.model.model_copy(update={"scorer": scorer}))
    final.load_state_dict(model.state_dict())
    return final

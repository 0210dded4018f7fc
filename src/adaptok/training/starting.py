"""The model that a run starts from."""

from __future__ import annotations

import torch

from adaptok.checkpoints import read_folder
from adaptok.models.model import Model
from adaptok.training.configuration import TrainingConfig
from adaptok.training.data import Data
from adaptok.training.growing import grow
from adaptok.training.linear_start import linear_start
from adaptok.training.objectives import Measures, ScorerObjective

START_CLIPS = 256
"""Clips whose principal components make a linear start."""
STATISTICS_BATCHES = 16
"""Batches over which a scorer's targets are measured before its training."""


def new_model(config: TrainingConfig, data: Data) -> Model:
    """The model that a run starts from."""
    torch.manual_seed(config.seed)
    if config.initial is None:
        model = Model(config.model)
        if config.start == "linear":
            linear_start(model.tokenizer, torch.stack([data.train[i] for i in range(START_CLIPS)]))
        return model
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


def measure_targets(model: Model, config: TrainingConfig, data: Data, measures: Measures) -> Model:
    """The same model with its scorer normalised by the statistics of true distortions over the training clips."""
    assert model.scorer is not None
    assert config.model.scorer is not None
    unit = {"mean": 0.0, "std": 1.0}
    probe_config = config.model.model_copy(update={"scorer": config.model.scorer.model_copy(update=unit)})
    probe = Model(probe_config)
    probe.load_state_dict(model.state_dict())
    objective = ScorerObjective(probe, config, measures)
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

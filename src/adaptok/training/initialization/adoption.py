"""Architecture of runs that start from a model: that of the model, instead of that of a preset."""

from __future__ import annotations

from collections.abc import Collection

from adaptok.checkpoints.hub import resolve
from adaptok.checkpoints.model_folder import read_folder
from adaptok.config.model import ModelConfig
from adaptok.config.tokenizer import VectorQuantizerConfig
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, TrainingConfig

FINE_TUNED = "-finetuned"
"""Appended to the name of a model whose tokenizer is trained further."""


def adopt_initial(config: AnyConfig, given: Collection[str]) -> AnyConfig:
    """Replace the architecture of a preset by that of the model it starts from.

    A scorer run takes over the tokenizer, the prior and the name. A tokenizer run takes over the whole model, with a
    name of its own. Runs that set fields of the architecture themselves, and generators, whose architecture follows
    from the preset and the token dataset, stay as they are.

    Args:
        config: configuration that was read from a preset.
        given: keys that replace fields of the preset.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the folder holds no tokenizer, or the rest of the configuration does not fit the model.
    """
    if isinstance(config, GeneratorTrainingConfig) or config.initial is None:
        return config
    if any(key.startswith(("model.tokenizer", "model.prior")) for key in given):
        return config
    source = read_folder(resolve(config.initial)).config
    values: dict[str, object] = {"tokenizer": source.tokenizer, "prior": source.prior, "name": source.name}
    if config.stage == "tokenizer":
        if any(key.startswith("model.") and key != "model.name" for key in given) or "initial" not in given:
            return config
        values |= {"scorer": source.scorer, "name": source.name.removesuffix(FINE_TUNED) + FINE_TUNED}
        if source.prior is None and isinstance(source.tokenizer.quantizer, VectorQuantizerConfig):
            values["prior"] = config.model.prior
    if "model.name" in given:
        del values["name"]
    model = ModelConfig.parse(config.model.model_copy(update=values).model_dump(), f"initial {config.initial}")
    adopted = config.model_copy(update={"model": model})
    return TrainingConfig.parse(adopted.model_dump(), f"configuration with the model of {config.initial}")

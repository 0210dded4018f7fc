"""How a generator stores the weights of its linear layers for sampling."""

from __future__ import annotations

from typing import get_args

import torch

from adaptok.config.choices import WeightFormat
from adaptok.models.generator import GeneratorModel
from adaptok.ops.int8_linear import quantize_linears
from adaptok.ops.prepacked_linear import prepack_linears, unpack_linears


def check_weights(weights: WeightFormat, device: torch.device, compile: bool) -> None:
    """Raise ValueError unless a generator can store its weights in this way."""
    if weights not in get_args(WeightFormat):
        raise ValueError(f"weights {weights!r}, expected one of {', '.join(get_args(WeightFormat))}")
    if weights == "int8" and device.type != "cpu":
        raise ValueError(f"int8 weights on the device {device}, expected cpu; choose that device, or float weights")
    if weights == "int8" and compile:
        raise ValueError("int8 weights cannot be compiled; leave out compile, or choose float weights")


def move_model(
    model: GeneratorModel, device: torch.device, dtype: torch.dtype, weights: WeightFormat, prepack: bool
) -> None:
    """Move a generator to a device, convert it to a type, and store its linear layers in the layout of their kernel.

    Args:
        prepack: whether float weights on a CPU are stored in the layout of oneDNN.

    Raises:
        ValueError: this build of torch lacks the kernels of int8 weights.
    """
    unpack_linears(model)
    model.compiled = None  # it may hold a CUDA graph of the weights where they were
    model.to(device, dtype)
    if weights == "int8":
        quantize_linears(model)
    elif prepack:
        prepack_linears(model)

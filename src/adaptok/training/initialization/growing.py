"""Initialization of a tokenizer from one with smaller windows or without convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptok.config.transformer import StackConfig
from adaptok.models.tokenizer import Tokenizer

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

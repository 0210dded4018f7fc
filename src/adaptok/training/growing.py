"""Starting a tokenizer from a smaller one, so that both compute the same until the first step."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptok.models.tokenizer import Tokenizer

_GROWING = ("encoder_window", "decoder_window", "stem", "head")


@torch.no_grad()
def grow(tokenizer: Tokenizer, source: Tokenizer) -> None:
    """Give `tokenizer` the weights of `source`, in place.

    It may have larger windows, which start as the old ones in the middle of zeros, and a stem or a head of
    convolutions where the source has none: new ones add nothing yet.

    Raises:
        ValueError: the two differ in anything else.
    """
    ours, theirs = tokenizer.config, source.config
    for name in type(ours).model_fields:
        old, new = getattr(theirs, name), getattr(ours, name)
        if old != new and not (name in _GROWING and old is None):
            raise ValueError(f"{name} is {old} there and {new} here")
    state = dict(source.state_dict())
    frames, colours = ours.temporal_patch_size, ours.channels
    if (inner := tokenizer.encoder_taper) is not None and source.encoder_taper is None:
        old_weight = state["patch_embedding.weight"].view(-1, colours * frames, ours.patch_size, ours.patch_size)
        state["patch_embedding.weight"] = _surround(old_weight, inner).flatten(1)
    if (inner := tokenizer.decoder_taper) is not None and source.decoder_taper is None:
        for name in ("to_pixels.weight", "to_pixels.bias"):
            shape = (frames, ours.patch_size, ours.patch_size, -1)  # the last: colours, and numbers that are read
            values = state[name].view(shape).permute(0, 3, 1, 2)
            state[name] = _surround(values, inner).permute(0, 2, 3, 1).reshape(-1, *state[name].shape[1:])
    new_parts = {name: t for name, t in tokenizer.state_dict().items() if name not in state}
    tokenizer.load_state_dict({**new_parts, **state})


def _surround(values: Tensor, taper: Tensor) -> Tensor:
    """`[..., p, p]` to `[..., w, w]`: in the middle what becomes `values` once the taper is on it, zeros around."""
    margin = (taper.shape[-1] - values.shape[-1]) // 2
    inside = slice(margin, margin + values.shape[-1])
    whole = values.new_zeros(*values.shape[:-2], *taper.shape)
    whole[..., inside, inside] = values / taper[inside, inside]
    return whole

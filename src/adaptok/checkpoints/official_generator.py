"""The official layout of a generator: its configuration and the names of its weights, converted in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaptok.checkpoints.official_fields import refuse_unsupported
from adaptok.config.generator import GeneratorConfig
from adaptok.config.ucf101 import UCF101_CLASSES

_NAMES = {  # name in this project -> official name, of the model and of a layer
    "tokens.weight": "tok_embeddings.weight",
    "classes.weight": "cls_embedding.embedding_table.weight",
    "positions": "abs_pe",
    "norm.weight": "norm.weight",
    "output.weight": "output.weight",
    "norm1.weight": "attention_norm.weight",
    "attn.qkv.weight": "attention.wqkv.weight",
    "attn.proj.weight": "attention.wo.weight",
    "norm2.weight": "ffn_norm.weight",
    "feed_forward.down.weight": "feed_forward.w2.weight",
}
_GATE_UP = "feed_forward.gate_up.weight"
_GATE, _UP = "feed_forward.w1.weight", "feed_forward.w3.weight"
_FIXED: dict[str, Any] = {  # options with a single supported value
    "n_kv_head": None,
    "ffn_dim_multiplier": None,
    "multiple_of": 256,
    "norm_eps": 1e-5,
    "with_block_sep": True,
    "attn_dropout_p": 0.0,
    "drop_path_rate": 0.0,
    "model_type": "class_cond",
    "use_fixed_pe": False,
}


def translate(c: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    """Convert the configuration and weights of a generator to this project's.

    A generator of 101 classes gets the class names of UCF-101, on which the official one was trained.

    Raises:
        KeyError: A field is missing.
        ValueError: The architecture is not supported, or weights are unknown.
    """
    supported: dict[str, tuple[Any, ...]] = {name: (value,) for name, value in _FIXED.items()}
    dropout = c.get("resid_dropout_p", 0.1)
    refuse_unsupported(c, supported | {"n_kv_head": (None, c["n_head"]), "ffn_dropout_p": (dropout,)})
    predicts = bool(c.get("frame_prediction"))
    total, blocks = c["max_seq_len"], c["tot_blocks"]
    if blocks < 1 or total % blocks:
        raise ValueError(f"max_seq_len {total} is not a multiple of tot_blocks {blocks}")
    values = {
        "name": "adaptok-official-generator",
        "width": c["dim"],
        "depth": c["n_layer"],
        "heads": c["n_head"],
        "codebook_size": c["vocab_size"],
        "blocks": blocks,
        "latents": total // blocks,
        "classes": 0 if predicts else c["num_classes"],
        "labels": UCF101_CLASSES if not predicts and c["num_classes"] == len(UCF101_CLASSES) else (),
        "condition_ids": c["cls_token_num"] - 1 if predicts else 0,
        "first_block": c.get("start_ar_block_idx", 0) if predicts else 0,
        "dropout": dropout,
        "token_dropout": c.get("token_dropout_p", 0.1),
        "class_dropout": c.get("class_dropout_prob", 0.1),
    }
    config = GeneratorConfig.parse(values)
    return config, _from_official_names(state)


def to_document(config: GeneratorConfig) -> dict[str, Any]:
    """Return the official `config.json` of a generator.

    Raises:
        ValueError: The official layout does not support this architecture.
    """
    if config.levels:
        raise ValueError(
            "the official layout does not support ids that are embedded by levels; write the layout 'adaptok'"
        )
    predicts = config.condition_ids > 0
    return {
        **_FIXED,
        "cls_token_num": config.prefix,
        "class_dropout_prob": config.class_dropout,
        "custom_cls_token_num": predicts,
        "dim": config.width,
        "ffn_dropout_p": config.dropout,
        "frame_prediction": predicts,
        "initializer_range": 0.02,
        "max_seq_len": config.blocks * config.latents,
        "mode": "train_adap_ar_fp" if predicts else "train_adap_ar",
        "n_head": config.heads,
        "n_layer": config.depth,
        "num_classes": config.classes,
        "resid_dropout_p": config.dropout,
        "start_ar_block_idx": config.first_block,
        "token_dropout_p": config.token_dropout,
        "tot_blocks": config.blocks,
        "vocab_size": config.codebook_size,
    }


def to_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to their official names. Officially, the gate and up projections are two matrices."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, part = _split(name)
        if part == _GATE_UP:
            gate, up = tensor.chunk(2)
            renamed |= {layer + _GATE: gate.contiguous(), layer + _UP: up.contiguous()}
        else:
            renamed[layer + _NAMES[part]] = tensor[None] if part == "positions" else tensor
    return renamed


def _from_official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official weights. Here, the gate and up projections are one matrix, and positions have two dimensions."""
    ours = {official: own for own, official in _NAMES.items()}
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        layer, part = _split(name)
        if part in ours:
            renamed[layer + ours[part]] = tensor.squeeze(0) if part == "abs_pe" else tensor
        elif part == _GATE and layer + _UP in state:
            if tensor.shape != state[layer + _UP].shape:
                shapes = tuple(tensor.shape), tuple(state[layer + _UP].shape)
                raise ValueError(
                    f"{name} and {layer}{_UP} have shapes {shapes[0]} and {shapes[1]}, expected equal ones"
                )
            renamed[layer + _GATE_UP] = torch.cat([tensor, state[layer + _UP]])
        elif part != _UP:
            unknown.append(name)
    if unknown:
        raise ValueError(f"{len(unknown)} unknown weights: {', '.join(sorted(unknown))}")
    return renamed


def _split(name: str) -> tuple[str, str]:
    """Split a name into `layers.N.` and the rest; the former is empty outside of layers."""
    if not name.startswith("layers."):
        return "", name
    _, number, part = name.split(".", 2)
    return f"layers.{number}.", part

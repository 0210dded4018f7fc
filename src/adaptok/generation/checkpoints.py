"""Folders of generators: ours, and the official ones.

Ours is `config.json` (`{"format": "adaptok-generator", "version": 1, "generator": {...}}`) beside `model.safetensors`.
The official layout is a flat `config.json` and other names; both are read, and both can be written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from adaptok.checkpoints import CONFIG_FILE, WEIGHTS_FILE, CheckpointError, check_names, read_files
from adaptok.configuration import GeneratorConfig
from adaptok.files import replacing
from adaptok.models.generator import GeneratorModel

FORMAT, VERSION = "adaptok-generator", 1
Layout = Literal["adaptok", "official"]

_NAMES = {  # ours -> official, of the whole model and of a layer
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
_FIXED: dict[str, Any] = {  # what our architecture has no choice of
    "n_kv_head": None,
    "ffn_dim_multiplier": None,
    "multiple_of": 256,
    "norm_eps": 1e-5,
    "with_block_sep": True,
    "attn_dropout_p": 0.0,
    "drop_path_rate": 0.0,
}


def read_generator(folder: str | Path, dtype: torch.dtype = torch.float32) -> GeneratorModel:
    """The generator of a folder of either layout, its weights as `dtype`, on the CPU.

    Raises:
        FileNotFoundError: the folder or one of its two files is not there.
        CheckpointError: a file is damaged, of neither layout, or weights are missing, unknown or of another shape.
    """
    folder = Path(folder)
    document, state = read_files(folder)
    if document.get("format") == FORMAT:
        config = _our_config(document, folder)
    elif "n_layer" in document and "vocab_size" in document:
        config = _official_config(document, folder)
        state = _from_official(state, folder)
    else:
        kind = "a tokenizer" if document.get("format") == "adaptok" or "bottleneck_token_num" in document else "unknown"
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected a generator of our or the official layout, is {kind}")
    with torch.device("meta"):
        model = GeneratorModel(config)
    check_names(state, model.state_dict())
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    model.make_tables()
    return model.eval()


def write_generator(
    model: GeneratorModel, folder: str | Path, dtype: torch.dtype = torch.float32, layout: Layout = "adaptok"
) -> None:
    """Write a generator, its weights as `dtype`; both files are written beside and renamed.

    Raises:
        ValueError: the official layout does not know this architecture.
    """
    folder = Path(folder)
    state = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    document: dict[str, Any]
    if layout == "official":
        if model.config.levels:
            raise ValueError("the official layout has no ids by digits (levels); write layout 'adaptok'")
        state, document = _to_official(state), _official_document(model.config)
    else:
        document = {"format": FORMAT, "version": VERSION, "generator": model.config.model_dump(mode="json")}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS_FILE) as path:
        save_file(state, path, metadata={"format": "pt"})
    with replacing(folder / CONFIG_FILE) as path:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def is_generator(folder: Path) -> bool:
    """Whether a folder's `config.json` is that of a generator."""
    try:
        document = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and (document.get("format") == FORMAT or "n_layer" in document)


def _our_config(document: Mapping[str, Any], folder: Path) -> GeneratorConfig:
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: version {document.get('version')!r} of the format, this program reads {VERSION};"
            " install a newer adaptok"
        )
    try:
        return GeneratorConfig.parse(document.get("generator", {}), str(folder / CONFIG_FILE))
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _official_config(c: Mapping[str, Any], folder: Path) -> GeneratorConfig:
    where = folder / CONFIG_FILE
    for name, value in _FIXED.items():
        if c.get(name, value) not in (value, c["n_head"] if name == "n_kv_head" else value):
            raise CheckpointError(f"{where}: {name} {c[name]!r} is not supported, expected {value!r}")
    predicts = bool(c.get("frame_prediction"))
    try:
        total, blocks = c["max_seq_len"], c["tot_blocks"]
        if total % blocks:
            raise CheckpointError(f"{where}: max_seq_len {total} is not a multiple of tot_blocks {blocks}")
        return GeneratorConfig(
            name="adaptok-official-generator",
            width=c["dim"],
            depth=c["n_layer"],
            heads=c["n_head"],
            codebook_size=c["vocab_size"],
            blocks=blocks,
            latents=total // blocks,
            classes=0 if predicts else c["num_classes"],
            condition_ids=c["cls_token_num"] - 1 if predicts else 0,
            first_block=c.get("start_ar_block_idx", 0) if predicts else 0,
            dropout=c.get("resid_dropout_p", 0.1),
            token_dropout=c.get("token_dropout_p", 0.1),
            class_dropout=c.get("class_dropout_prob", 0.1),
        )
    except KeyError as error:
        raise CheckpointError(f"{where}: the field {error} is missing") from None
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _official_document(config: GeneratorConfig) -> dict[str, Any]:
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
        "model_type": "class_cond",
        "n_head": config.heads,
        "n_layer": config.depth,
        "num_classes": config.classes,
        "resid_dropout_p": config.dropout,
        "start_ar_block_idx": config.first_block,
        "token_dropout_p": config.token_dropout,
        "tot_blocks": config.blocks,
        "use_fixed_pe": False,
        "vocab_size": config.codebook_size,
    }


def _from_official(state: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Weights by our names: gate and up are one matrix, positions have no leading dimension."""
    ours = {official: own for own, official in _NAMES.items()}
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        layer, part = _split(name)
        if part in ours:
            renamed[layer + ours[part]] = tensor.squeeze(0) if part == "abs_pe" else tensor
        elif part == _GATE and layer + _UP in state:
            renamed[layer + _GATE_UP] = torch.cat([tensor, state[layer + _UP]])
        elif part != _UP:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"{folder / WEIGHTS_FILE}: {len(unknown)} unknown weights: {', '.join(sorted(unknown))}")
    return renamed


def _to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, part = _split(name)
        if part == _GATE_UP:
            gate, up = tensor.chunk(2)
            renamed |= {layer + _GATE: gate.contiguous(), layer + _UP: up.contiguous()}
        else:
            renamed[layer + _NAMES[part]] = tensor[None] if part == "positions" else tensor
    return renamed


def _split(name: str) -> tuple[str, str]:
    """`layers.N.` and the rest; nothing and all of it outside the layers."""
    if not name.startswith("layers."):
        return "", name
    _, number, part = name.split(".", 2)
    return f"layers.{number}.", part

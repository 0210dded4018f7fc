"""Checkpoint folders: ours, and the official ones.

Ours is `config.json` (`{"format": "adaptok", "version": 1, "model": {...}}`) beside `model.safetensors`, whose names
start with the part they belong to: `tokenizer.`, `scorer.`, `prior.`. A generator's is the same with the format
`adaptok-generator`. The official layout has a flat `config.json` and other names; `read_folder` and `read_generator`
tell them apart by `config.json` and give the same model for both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptok.checkpoints import official_generator
from adaptok.config.model import (
    ConfigT,
    GeneratorConfig,
    ModelConfig,
    PriorConfig,
    ScorerConfig,
    StackConfig,
    TokenizerConfig,
    VectorQuantizerConfig,
)
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model, weights_hash
from adaptok.utils.files import replacing

FORMAT, GENERATOR_FORMAT, VERSION = "adaptok", "adaptok-generator", 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

# official name -> ours; the rest of a name follows unchanged
_OFFICIAL_PREFIXES = {
    "x_embedder.proj.": "tokenizer.patch_embedding.",
    "encoder_patch_pe": "tokenizer.encoder_patch_positions",
    "encoder_latent_query_embed": "tokenizer.encoder_queries",
    "encoder.blocks.": "tokenizer.encoder.blocks.",
    "bottleneck.in_linear.": "tokenizer.to_code.",
    "bottleneck.out_linear.": "tokenizer.from_code.",
    "bottleneck.regularizer.embedding.weight": "tokenizer.quantizer.codebook",
    "decoder_latent_pe": "tokenizer.decoder_latent_positions",
    "decoder_patch_query_embed": "tokenizer.decoder_patch_queries",
    "decoder_patch_query_token_type_embed": "tokenizer.decoder_patch_type",
    "decoder.blocks.": "tokenizer.decoder.blocks.",
    "final_layer.norm_final.": "tokenizer.final_norm.",
    "final_layer.linear.": "tokenizer.to_pixels.",
    "scorer.blocks.": "scorer.stack.blocks.",
    "scorer.ffn.": "scorer.head.",
    "scorer.latent_pe": "scorer.positions",
    "scorer.ln_post.": "scorer.final_norm.",
    "scorer.project.": "scorer.project.",
    "prior_model.blocks.": "prior.blocks.",
    "prior_model.input_proj.": "prior.input.",
    "prior_model.pos_emb": "prior.positions",
    "prior_model.ln_f.": "prior.final_norm.",
    "prior_model.head.": "prior.head.",
}
_OFFICIAL_PRIORS = {  # layers, heads, width
    "gptc-XXS": (6, 4, 256),
    "gptc-XS": (6, 6, 384),
    "gptc-S": (12, 6, 384),
    "gptc-M": (12, 8, 512),
    "gptc-B": (12, 12, 768),
    "gptc-L": (24, 16, 1024),
}


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be read, told in one line."""


class Checkpoint(NamedTuple):
    """A configuration and its weights, by our names. `layout` says which kind of folder it came from."""

    config: ModelConfig
    state: dict[str, Tensor]
    layout: str

    def build(self) -> Model:
        """The model in float32 on the CPU.

        Raises:
            CheckpointError: weights are missing, unknown or of another shape.
        """
        with torch.device("meta"):
            model = Model(self.config)
        check_names(self.state, model.state_dict())
        model.load_state_dict(self.state, assign=True)
        return model.float().eval()

    def hash(self) -> str:
        """Of the tokenizer's weights: what a token file remembers of its model."""
        return weights_hash(self.state)


def check_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError that lists the weights that are missing, unknown or of another shape."""
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"{len(missing)} missing weights: {', '.join(missing)}")
    if unknown := sorted(state.keys() - expected.keys()):
        problems.append(f"{len(unknown)} unknown weights: {', '.join(unknown)}")
    for name in sorted(expected.keys() & state.keys()):
        found, wanted = tuple(state[name].shape), tuple(expected[name].shape)
        if found != wanted:
            problems.append(f"{name} has shape {found}, the configuration expects {wanted}")
    if problems:
        raise CheckpointError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}: " + "; ".join(problems))


def read_folder(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder of either layout.

    Raises:
        FileNotFoundError: the folder or one of its two files is not there.
        CheckpointError: a file is damaged, or of neither layout.
    """
    folder = Path(folder)
    config, state = _read_files(folder)
    if config.get("format") == FORMAT:
        return Checkpoint(_our_config(config, folder, ModelConfig), state, "adaptok")
    if is_generator(config):
        raise CheckpointError(f"{folder}: a generator, expected a tokenizer")
    if "bottleneck_token_num" in config:
        return _read_official(config, state, folder)
    raise CheckpointError(
        f'{folder / CONFIG_FILE}: neither an adaptok folder (no "format": "{FORMAT}") nor an official AdapTok '
        'tokenizer (no "bottleneck_token_num")'
    )


def read_generator(folder: str | Path, dtype: torch.dtype = torch.float32) -> GeneratorModel:
    """The generator in a folder of either layout, its weights as `dtype`, on the CPU.

    Raises:
        FileNotFoundError: the folder or one of its two files is not there.
        CheckpointError: a file is damaged, holds no generator, or weights do not fit.
    """
    folder = Path(folder)
    document, state = _read_files(folder)
    if document.get("format") == GENERATOR_FORMAT:
        config = _our_config(document, folder, GeneratorConfig)
    elif is_generator(document):
        try:
            config, state = official_generator.translate(document, state)
        except KeyError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: the field {error} is missing") from None
        except ValueError as error:
            raise CheckpointError(f"{folder}: {error}") from None
    else:
        kind = "a tokenizer" if document.get("format") == FORMAT or "bottleneck_token_num" in document else "unknown"
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected a generator, of our or the official layout, is {kind}")
    with torch.device("meta"):
        model = GeneratorModel(config)
    check_names(state, model.state_dict())
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    model.fill_tables()
    return model.eval()


def is_generator(document: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a generator."""
    return document.get("format") == GENERATOR_FORMAT or ("n_layer" in document and "vocab_size" in document)


def holds_generator(folder: Path) -> bool:
    """Whether a folder is that of a generator; False where it is none of a model."""
    try:
        document = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and is_generator(document)


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two files of a checkpoint folder, whatever they are of."""
    for file in (folder, folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        if not file.exists():
            raise FileNotFoundError(f"{file}: not found; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: not a JSON file ({error})") from None
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE}: not a whole safetensors file ({error})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected a JSON object, found {type(config).__name__}")
    return config, state


def _our_config(config: dict[str, Any], folder: Path, kind: type[ConfigT]) -> ConfigT:
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: version {config.get('version')!r} of the format, this program reads {VERSION}; "
            "install a newer adaptok"
        )
    try:
        return kind.parse(config.get("model", {}), str(folder / CONFIG_FILE))
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _read_official(config: dict[str, Any], state: dict[str, Tensor], folder: Path) -> Checkpoint:
    renamed, unknown = {}, []
    for name, tensor in state.items():
        prefix = next((p for p in _OFFICIAL_PREFIXES if name == p or (p.endswith(".") and name.startswith(p))), None)
        if prefix is None:
            unknown.append(name)
        else:
            renamed[_OFFICIAL_PREFIXES[prefix] + name[len(prefix) :]] = tensor
    if unknown:
        raise CheckpointError(f"{folder / WEIGHTS_FILE}: {len(unknown)} unknown weights: {', '.join(sorted(unknown))}")
    try:
        ours = _translate_config(config, has_scorer=any(name.startswith("scorer.") for name in renamed))
    except KeyError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: the field {error} is missing") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from None
    with torch.device("meta"):
        expected = Model(ours).state_dict()
    for name, tensor in renamed.items():  # leading dimensions of 1 and the kernel's shape are flat in ours
        if name in expected and tensor.numel() == expected[name].numel():
            renamed[name] = tensor.reshape(expected[name].shape)
    return Checkpoint(ours, renamed, "official")


def _translate_config(c: Mapping[str, Any], has_scorer: bool) -> ModelConfig:
    bottleneck = c["bottleneck"]["args"]
    regularizer = bottleneck["regularizer"]["args"]
    blocks = c["frame_num"] // c["temporal_patch_size"]
    total = c["bottleneck_token_num"]
    if not regularizer.get("l2_normalized", True) or bottleneck["regularizer"]["name"] != "vq":
        raise ValueError("only the L2-normalised 'vq' regularizer of the bottleneck is supported")
    if total % blocks:
        raise ValueError(f"bottleneck_token_num {total} is not a multiple of {blocks} blocks")
    if c["decoder_patch_size"] != c["patch_size"] or c["decoder_temporal_patch_size"] != c["temporal_patch_size"]:
        raise ValueError("patch sizes of encoder and decoder differ, expected the same")

    def stack(part: str) -> dict[str, int]:
        return {
            "width": c[f"{part}_hidden_size"],
            "depth": c[f"{part}_depth"],
            "heads": c[f"{part}_num_heads"],
        }

    scorer = None
    if has_scorer or "scorer" in str(c.get("mode", "")):
        scorer = ScorerConfig.parse({**stack("scorer"), "length_step": c["scorer_step"]})
    return ModelConfig(
        name="adaptok-official",
        tokenizer=TokenizerConfig(
            frames=c["frame_num"],
            size=c["input_size"],
            channels=c.get("in_channels", 3),
            patch_size=c["patch_size"],
            temporal_patch_size=c["temporal_patch_size"],
            latents=total // blocks,
            encoder=StackConfig.parse(stack("encoder")),
            decoder=StackConfig.parse(stack("decoder")),
            quantizer=VectorQuantizerConfig(
                size=regularizer["codebook_size"],
                dim=bottleneck["bottleneck_dim"],
                temperature=regularizer["stochastic_temperature"] if regularizer["stochastic"] else 0.0,
                commitment_weight=regularizer["commitment_loss_weight"],
                codebook_weight=regularizer["codebook_loss_weight"],
            ),
            patch_type_embedding=c["use_decoder_patch_query_token_type_embed"],
        ),
        scorer=scorer,
        prior=_translate_prior(c.get("prior_model", {})),
    )


def _translate_prior(c: Mapping[str, Any]) -> PriorConfig | None:
    name = c.get("name", "none")
    if name == "none":
        return None
    if name not in _OFFICIAL_PRIORS:
        raise ValueError(f"unknown prior_model name {name!r}, expected one of {sorted(_OFFICIAL_PRIORS)}")
    args = c["args"] if "latent_ce_temperature" in c.get("args", {}) else {**c.get("args", {}), **c}
    depth, heads, width = _OFFICIAL_PRIORS[name]
    return PriorConfig(
        width=width,
        depth=depth,
        heads=heads,
        dropout=0.0 if args.get("no_dropout") else 0.1,
        temperature=args.get("latent_ce_temperature", 1.0),
        sampling_peak=args.get("mix_ss_max_ratio", 0.5) if args.get("use_mix_ss", True) else 0.0,
        sampling_ramp=args.get("mix_ss_peak_steps_ratio", 0.3),
    )


def write_folder(model: Model | GeneratorModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model in our layout, its floating-point weights as `dtype`; both files are written beside and renamed."""
    name = GENERATOR_FORMAT if isinstance(model, GeneratorModel) else FORMAT
    document = {"format": name, "version": VERSION, "model": model.config.model_dump(mode="json")}
    _write_files(Path(folder), document, _stored(model, dtype))


def write_official_generator(model: GeneratorModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a generator in the official layout.

    Raises:
        ValueError: that does not know this architecture.
    """
    _write_files(
        Path(folder), official_generator.document(model.config), official_generator.names_of(_stored(model, dtype))
    )


def _stored(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}


def _write_files(folder: Path, document: Mapping[str, Any], state: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS_FILE) as path:
        save_file(state, path, metadata={"format": "pt"})
    with replacing(folder / CONFIG_FILE) as path:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

"""The official layout of a tokenizer: its configuration and the names of its weights, converted in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from adaptok.checkpoints.official_fields import NONE, refuse_unsupported
from adaptok.config.model import ModelConfig, PriorConfig, ScorerConfig
from adaptok.config.tokenizer import ScalarQuantizerConfig, VectorQuantizerConfig
from adaptok.config.transformer import TransformerConfig
from adaptok.models.model import Model

_PREFIXES = {  # official prefix -> prefix in this project
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
_PRIORS = {  # depth, heads, width
    "gptc-XXS": (6, 4, 256),
    "gptc-XS": (6, 6, 384),
    "gptc-S": (12, 6, 384),
    "gptc-M": (12, 8, 512),
    "gptc-B": (12, 12, 768),
    "gptc-L": (24, 16, 1024),
}
_LEADING = {  # number of leading dimensions of size 1 of official weights
    "encoder_patch_pe": 1,
    "decoder_latent_pe": 1,
    "decoder_patch_query_embed": 1,
    "decoder_patch_query_token_type_embed": 2,
    "prior_model.pos_emb": 1,
}
_TRANSFORMER = "transformer_encoder_parallel"
_SUPPORTED: dict[str, tuple[Any, ...]] = {  # values of fields that change the model, the official one first
    "transformer_name": (_TRANSFORMER,),
    "encoder_name": ("none", None, "no", "null", "", _TRANSFORMER),
    "decoder_name": ("none", None, "no", "null", "", _TRANSFORMER),
    "scorer_name": ("transformer_scorer", *NONE),
    "encoder_attn_type": ("full_causal_type1",),
    "decoder_attn_type": ("full_causal_type2",),
    "decode_mode": ("with_drop", "with_mask"),  # two computations of the same result
    "learned_encoder_patch_pe": (False,),
    "learned_encoder_latent_query_embed": (True,),
    "learned_decoder_latent_pe": (False,),
    "learned_decoder_patch_query_embed": (False,),
    "use_encoder_patch_token_type_embed": (False,),
    "use_encoder_latent_query_token_type_embed": (False,),
    "use_decoder_latent_token_type_embed": (False,),
    "bottleneck.name": ("bottleneck",),
    "bottleneck.args.norm": ("none", None, "no", "null", ""),
    "bottleneck.args.regularizer.name": ("vq",),
    "bottleneck.args.regularizer.args.l2_normalized": (True,),
    "bottleneck.args.regularizer.args.entropy_loss_weight": (0.0, 0),
    "bottleneck.args.regularizer.args.eval_deterministic": (True,),
}
_SUPPORTED_PRIOR: dict[str, tuple[Any, ...]] = {
    "prior_model.n_rounds": (2,),
    "prior_model.avg_loss_over_rounds": (True,),
    "prior_model.no_grad_before_last_round": (False,),
    "prior_model.use_mix_ss": (True,),
    "prior_model.l2_normalized": (True,),
}
_MEAN, _STD = ScorerConfig().mean, ScorerConfig().std  # the official program knows no others


def translate(c: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert the configuration and weights of a tokenizer.

    Raises:
        KeyError: A field is missing.
        ValueError: The architecture is not supported, or weights are unknown.
    """
    refuse_unsupported(c, _SUPPORTED)
    renamed, unknown = {}, []
    for name, tensor in state.items():
        prefix = next((p for p in _PREFIXES if name == p or (p.endswith(".") and name.startswith(p))), None)
        if prefix is None:
            unknown.append(name)
        else:
            renamed[_PREFIXES[prefix] + name[len(prefix) :]] = tensor
    if unknown:
        raise ValueError(f"{len(unknown)} unknown weights: {', '.join(sorted(unknown))}")
    config = _convert_config(c, has_scorer=any(name.startswith("scorer.") for name in renamed))
    with torch.device("meta"):
        expected = Model(config).state_dict()
    for name, tensor in renamed.items():  # official weights have leading dimensions of 1 and unflattened kernels
        if name in expected and tensor.numel() == expected[name].numel():
            renamed[name] = tensor.reshape(expected[name].shape)
    return config, renamed


def _convert_config(c: Mapping[str, Any], has_scorer: bool) -> ModelConfig:
    bottleneck = c["bottleneck"]["args"]
    regularizer = bottleneck["regularizer"]["args"]
    if c["temporal_patch_size"] < 1 or c["frame_num"] < c["temporal_patch_size"]:
        raise ValueError(f"temporal_patch_size {c['temporal_patch_size']}, expected 1 to the {c['frame_num']} frames")
    blocks = c["frame_num"] // c["temporal_patch_size"]
    total = c["bottleneck_token_num"]
    if total % blocks:
        raise ValueError(f"bottleneck_token_num {total} is not a multiple of {blocks} blocks")
    refuse_unsupported(c, {"mask_generator.tot_groups": (blocks,), "mask_generator.total_toks": (total // blocks,)})
    if c["decoder_patch_size"] != c["patch_size"] or c["decoder_temporal_patch_size"] != c["temporal_patch_size"]:
        raise ValueError("encoder and decoder have different patch sizes, expected the same")

    def stack(part: str) -> dict[str, int]:
        return {
            "width": c[f"{part}_hidden_size"],
            "depth": c[f"{part}_depth"],
            "heads": c[f"{part}_num_heads"],
        }

    scorer = None
    if has_scorer or c.get("scorer_name") not in NONE:
        refuse_unsupported(c, {"scorer_attn_type": ("full_causal_type1",)})
        scorer = ScorerConfig.parse({**stack("scorer"), "length_step": c["scorer_step"]})
    quantizer = {
        "kind": "vector",
        "size": regularizer["codebook_size"],
        "dim": bottleneck["bottleneck_dim"],
        "temperature": regularizer["stochastic_temperature"] if regularizer["stochastic"] else 0.0,
        "commitment_weight": regularizer["commitment_loss_weight"],
        "codebook_weight": regularizer["codebook_loss_weight"],
    }
    tokenizer = {
        "frames": c["frame_num"],
        "size": c["input_size"],
        "channels": c.get("in_channels", 3),
        "patch_size": c["patch_size"],
        "temporal_patch_size": c["temporal_patch_size"],
        "latents": total // blocks,
        "encoder": stack("encoder"),
        "decoder": stack("decoder"),
        "quantizer": quantizer,
        "patch_type_embedding": c["use_decoder_patch_query_token_type_embed"],
    }
    prior = _convert_prior(c.get("prior_model", {}))
    return ModelConfig.parse({"name": "adaptok-official", "tokenizer": tokenizer, "scorer": scorer, "prior": prior})


def _convert_prior(c: Mapping[str, Any]) -> PriorConfig | None:
    name = c.get("name", "none")
    if str(name).lower() in NONE:
        return None
    if name not in _PRIORS:
        raise ValueError(f"unknown prior_model name {name!r}, expected one of {sorted(_PRIORS)}")
    fields = {**c.get("args", {}), **c}
    refuse_unsupported({"prior_model": fields}, _SUPPORTED_PRIOR)
    depth, heads, width = _PRIORS[name]
    return PriorConfig.parse(
        {
            "width": width,
            "depth": depth,
            "heads": heads,
            "dropout": 0.0 if fields.get("no_dropout") else 0.1,
            "temperature": fields.get("latent_ce_temperature", 1.0),
            "sampling_peak": fields.get("mix_ss_max_ratio", 0.5),
            "sampling_ramp": fields.get("mix_ss_peak_steps_ratio", 0.3),
        }
    )


def to_document(config: ModelConfig) -> dict[str, Any]:
    """Return the official `config.json` of a tokenizer with its scorer and prior.

    Raises:
        ValueError: The official layout does not support this architecture. The message names the fields.
    """
    if problems := list(_unsupported(config)):
        raise ValueError(f"the official layout does not support {', '.join(problems)}; write the layout 'adaptok'")
    c, blocks = config.tokenizer, config.tokenizer.blocks
    document: dict[str, Any] = {path: allowed[0] for path, allowed in _SUPPORTED.items() if "." not in path}
    sizes: dict[str, TransformerConfig] = {"encoder": c.encoder, "decoder": c.decoder}
    if config.scorer is None:
        document["scorer_name"] = "none"
    else:
        sizes["scorer"] = config.scorer
        document |= {"scorer_attn_type": "full_causal_type1", "scorer_step": config.scorer.length_step}
    for part, stack in sizes.items():
        document |= {
            f"{part}_hidden_size": stack.width,
            f"{part}_depth": stack.depth,
            f"{part}_num_heads": stack.heads,
        }
    return document | {
        "bottleneck": _bottleneck_document(c.quantizer),
        "bottleneck_token_num": blocks * c.latents,
        "decoder_patch_size": c.patch_size,
        "decoder_temporal_patch_size": c.temporal_patch_size,
        "encoder_query_gaussian_init": True,
        "frame_num": c.frames,
        "in_channels": c.channels,
        "input_size": c.size,
        "latent_pe_scale_factor": 10000,
        "mask_generator": {
            "mask_type": "left_masking_by_group_normal",
            "eval_mask_type": "left_masking_by_group_adap",
            "min_toks": max(1, c.latents // 16),
            "max_toks": c.latents,
            "total_toks": c.latents,
            "tot_groups": blocks,
            "min_first_toks": 1,
            "mean_toks": c.latents // 2,
            "std_toks": c.latents // 4,
        },
        "mode": "train_adap" if config.scorer is None else "infer_with_online_scorer",
        "patch_size": c.patch_size,
        "prior_model": _prior_document(config.prior),
        "query_init_std": 0.02,
        "temporal_patch_size": c.temporal_patch_size,
        "token_select_mode": "ilp",
        "token_select_num": c.latents // 2,
        "use_decoder_patch_query_token_type_embed": c.patch_type_embedding,
    }


def to_official_names(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a tokenizer that `to_document` accepts, and restore the shapes of the official program.

    A scorer that was trained with another mean and standard deviation of LPIPS is rescaled: its last layer absorbs the
    difference, because the official program knows one mean and one standard deviation only.
    """
    own = {ours: official for official, ours in _PREFIXES.items()}
    scorer, renamed = config.scorer, {}
    for name, tensor in state.items():
        prefix = next(p for p in own if name == p or (p.endswith(".") and name.startswith(p)))
        official = own[prefix] + name[len(prefix) :]
        if scorer is not None and (scorer.mean, scorer.std) != (_MEAN, _STD):
            if name == "scorer.head.2.weight":
                tensor = tensor * (scorer.std / _STD)
            elif name == "scorer.head.2.bias":
                tensor = (tensor * scorer.std + scorer.mean - _MEAN) / _STD
        renamed[official] = tensor.reshape((1,) * _LEADING.get(official, 0) + tensor.shape)
    c = config.tokenizer
    kernel = (c.encoder.width, c.channels, c.temporal_patch_size, c.patch_size, c.patch_size)
    renamed["x_embedder.proj.weight"] = renamed["x_embedder.proj.weight"].reshape(kernel)
    return renamed


def _unsupported(config: ModelConfig) -> Iterator[str]:
    """Yield the fields of a configuration that the official program does not implement, with their values."""
    c, scorer, prior = config.tokenizer, config.scorer, config.prior
    for part in ("encoder", "decoder"):
        if changed := getattr(c, part).changed_options():
            yield f"tokenizer.{part} with {changed}"
    if not isinstance(c.quantizer, VectorQuantizerConfig):
        yield f"tokenizer.quantizer.kind {c.quantizer.kind!r}"
    defaults = {"learned_positions": False, "encoder_window": None, "decoder_window": None, "stem": None, "head": None}
    for name, default in defaults.items():
        if getattr(c, name) not in (default, c.patch_size):
            yield f"tokenizer.{name}"
    if scorer is not None and (scorer.distortion, scorer.scale) != ("lpips", "linear"):
        yield f"scorer.distortion {scorer.distortion!r} on a {scorer.scale} scale"
    if prior is not None and (prior.depth, prior.heads, prior.width) not in _PRIORS.values():
        yield f"a prior of depth {prior.depth}, {prior.heads} heads and width {prior.width}"
    if prior is not None and prior.dropout not in (0.0, 0.1):
        yield f"prior.dropout {prior.dropout:g}"


def _bottleneck_document(quantizer: VectorQuantizerConfig | ScalarQuantizerConfig) -> dict[str, Any]:
    assert isinstance(quantizer, VectorQuantizerConfig)
    regularizer = {
        "codebook_size": quantizer.size,
        "codebook_loss_weight": quantizer.codebook_weight,
        "commitment_loss_weight": quantizer.commitment_weight,
        "entropy_loss_temperature": 0.01,
        "entropy_loss_weight": 0.0,
        "eval_deterministic": True,
        "l2_normalized": True,
        "stochastic": quantizer.temperature > 0,
        "stochastic_temperature": quantizer.temperature,
    }
    args = {"bottleneck_dim": quantizer.dim, "norm": "none", "regularizer": {"args": regularizer, "name": "vq"}}
    return {"args": args, "name": "bottleneck"}


def _prior_document(prior: PriorConfig | None) -> dict[str, Any]:
    sizes = {size: name for name, size in _PRIORS.items()}
    fields = PriorConfig() if prior is None else prior
    return {
        "args": {"l2_normalized": True},
        "avg_loss_over_rounds": True,
        "latent_ce_temperature": fields.temperature,
        "mix_ss_max_ratio": fields.sampling_peak,
        "mix_ss_peak_steps_ratio": fields.sampling_ramp,
        "n_rounds": 2,
        "name": "none" if prior is None else sizes[prior.depth, prior.heads, prior.width],
        "no_dropout": fields.dropout == 0.0,
        "no_grad_before_last_round": False,
        "use_mix_ss": True,
    }

"""The official layout of a tokenizer: its configuration and the names of its weights, converted to this project's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaptok.config.model import ModelConfig, PriorConfig, ScorerConfig
from adaptok.config.tokenizer import TokenizerConfig, VectorQuantizerConfig
from adaptok.config.transformer import StackConfig
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


def translate(c: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Convert the configuration and weights of a tokenizer.

    Raises:
        KeyError: A field is missing.
        ValueError: The architecture is not supported, or weights are unknown.
    """
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
    blocks = c["frame_num"] // c["temporal_patch_size"]
    total = c["bottleneck_token_num"]
    if not regularizer.get("l2_normalized", True) or bottleneck["regularizer"]["name"] != "vq":
        raise ValueError("only the L2-normalized 'vq' regularizer of the bottleneck is supported")
    if total % blocks:
        raise ValueError(f"bottleneck_token_num {total} is not a multiple of {blocks} blocks")
    if c["decoder_patch_size"] != c["patch_size"] or c["decoder_temporal_patch_size"] != c["temporal_patch_size"]:
        raise ValueError("encoder and decoder have different patch sizes, expected the same")

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
        prior=_convert_prior(c.get("prior_model", {})),
    )


def _convert_prior(c: Mapping[str, Any]) -> PriorConfig | None:
    name = c.get("name", "none")
    if name == "none":
        return None
    if name not in _PRIORS:
        raise ValueError(f"unknown prior_model name {name!r}, expected one of {sorted(_PRIORS)}")
    args = c["args"] if "latent_ce_temperature" in c.get("args", {}) else {**c.get("args", {}), **c}
    depth, heads, width = _PRIORS[name]
    return PriorConfig(
        width=width,
        depth=depth,
        heads=heads,
        dropout=0.0 if args.get("no_dropout") else 0.1,
        temperature=args.get("latent_ce_temperature", 1.0),
        sampling_peak=args.get("mix_ss_max_ratio", 0.5) if args.get("use_mix_ss", True) else 0.0,
        sampling_ramp=args.get("mix_ss_peak_steps_ratio", 0.3),
    )

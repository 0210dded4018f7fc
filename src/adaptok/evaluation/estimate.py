"""What an evaluation will measure, and how much the models compute, without measuring anything."""

from __future__ import annotations

from typing import Any

from torch import nn

from adaptok.codec.codec import AdapTok
from adaptok.evaluation.pairs import FeaturesEvaluation, PairsEvaluation
from adaptok.evaluation.samples import SamplesEvaluation
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from adaptok.models.flops import decoder_flops, encoder_flops, generator_flops, probe_flops, scorer_flops

Evaluation = TokenizerEvaluation | PairsEvaluation | FeaturesEvaluation | SamplesEvaluation
_VIDEO_FIELDS = {"videos", "unit"}


def describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Describe an evaluation.

    Returns:
        The fields of its `Plan` (without the list of videos), and

        - videos: number of videos, or of windows of videos.
        - skipped_metrics: reason for each metric that is left out.
        - gflop_per_clip: work of the models on one clip, without metrics; None if no model runs. The sequences of a
          generator count with their maximum length.
        - weights_gb: size of the models and of the networks of the metrics in memory, in 10^9 bytes.
    """
    plan, measures = evaluation.plan, evaluation.measures
    networks: list[object] = [*measures.lpips.values(), measures.detector]
    flops = None
    if isinstance(evaluation, TokenizerEvaluation):
        networks.append(evaluation.codec.model)
        flops = _reconstruction_flops(evaluation)
    elif isinstance(evaluation, SamplesEvaluation):
        networks += [evaluation.codec.model, evaluation.generator.model]
        flops = _sampling_flops(evaluation)
    size = sum(_bytes(network) for network in networks if isinstance(network, nn.Module))
    return {
        **plan.model_dump(mode="json", exclude=_VIDEO_FIELDS),
        "videos": len(plan.videos),
        "skipped_metrics": dict(measures.skipped),
        "gflop_per_clip": None if flops is None else flops / 1e9,
        "weights_gb": size / 1e9,
    }


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _reconstruction_flops(evaluation: TokenizerEvaluation) -> float:
    """Count the FLOPs to encode a clip, score it, and decode it at every budget, with uniform lengths."""
    config = evaluation.codec.config
    blocks = config.tokenizer.blocks
    flops = encoder_flops(config)
    if config.scorer is not None:
        flops += _scoring_flops(evaluation)
    for variant in evaluation.measured:
        assert variant.budget is not None
        flops += decoder_flops(config, [round(variant.budget / blocks)] * blocks)
    return flops


def _scoring_flops(evaluation: TokenizerEvaluation) -> float:
    """Count the FLOPs to score a clip, for each budget if scores depend on it."""
    config, plan = evaluation.codec.config, evaluation.plan
    flops, effort, tokenizer = scorer_flops(config, None), plan.effort, config.tokenizer
    if effort == 0:
        return flops + (0.0 if plan.scope == "batch" else probe_flops(config))
    assert config.scorer is not None
    flops *= 1 + effort
    decoder = decoder_flops(config, [tokenizer.latents] * tokenizer.blocks)
    probes = {1: 0, 2: 3, 3: 3 + tokenizer.latents // config.scorer.length_step}[effort]  # of each block
    flops += decoder * (2 + probes * (tokenizer.blocks + 1) / 2)  # a probe decodes a block and all later ones
    return flops * len(plan.budgets)


def _sampling_flops(evaluation: SamplesEvaluation) -> float:
    """Count the FLOPs to encode a condition, generate a sequence of the maximum length, and decode it."""
    codec: AdapTok = evaluation.codec
    config, tokenizer = evaluation.generator.config, codec.config.tokenizer
    flops = generator_flops(config, config.blocks * (config.latents + 1))
    flops += decoder_flops(codec.config, [tokenizer.latents] * tokenizer.blocks)
    return flops + (encoder_flops(codec.config) if config.condition_ids else 0.0)

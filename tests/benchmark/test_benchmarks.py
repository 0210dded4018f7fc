"""Benchmarks: consistent figures, and the page that they are written to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adaptok.benchmark.timing import Measurement
from adaptok.benchmark.training import configuration
from adaptok.config.transformer import TransformerConfig
from adaptok.models.flops import decoder_flops, probe_flops
from tests.helpers.commands import fails, run
from tests.helpers.models import small_config

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


def test_benchmarks(codec, tmp_path, capsys, monkeypatch):
    """Figures are consistent; a page keeps the sections of other benchmarks."""
    monkeypatch.setattr("adaptok.benchmark.timing.MATRIX_SHAPES", ((64, 64, 64),))
    page, model = tmp_path / "performance.md", tmp_path / "model"
    codec.save_pretrained(model)
    for kind, cases in (("encode", 3), ("decode", 2)):
        flags = ["--model", model, "--clips", 2, "--repeats", 2, "--device", "cpu", "--page", page]
        results = run(capsys, "benchmark", kind, *flags)["results"]
        assert len(results) == cases
        for result in results:
            assert result["min_s"] <= result["median_s"]
            fraction = result["work_gflop"] / result["median_s"] / result["peak_gflops"]
            assert result["peak_fraction"] == pytest.approx(fraction)
    for blocks in (50, 60):
        run(capsys, "benchmark", "allocate", "--blocks", blocks, "--repeats", 1, "--page", page)
    text = page.read_text()
    assert text.startswith("# Performance\n\nAll numbers on this page are measured by `adaptok benchmark`.")
    assert [text.count(f"## {kind}") for kind in ("Encode", "Decode", "Allocate")] == [1, 1, 1]
    assert "| allocate | 60 |" in text
    assert "| allocate | 50 |" not in text
    assert "expected 1 or more" in fails(capsys, "benchmark", "encode", "--model", model, "--clips", 0)


def test_work_of_anchors():
    """Decoding one block at one probe length, with nothing before it, is decoding a clip of one block."""
    config = small_config()
    one = config.tokenizer.model_copy(update={"frames": config.tokenizer.temporal_patch_size})
    scorer = config.scorer.model_copy(update={"probe_lengths": (4,)})
    config = config.model_copy(update={"tokenizer": one, "scorer": scorer})
    assert probe_flops(config) == pytest.approx(decoder_flops(config, [4]))


def test_generation(capsys, monkeypatch):
    """Tokens and time are consistent; slots of clips of varying length are occupied."""
    small = TransformerConfig(width=64, depth=2, heads=2)
    monkeypatch.setattr("adaptok.benchmark.generation.generator_size", lambda size: small)
    monkeypatch.setattr("adaptok.benchmark.generation.VARYING_CLIPS", 12)
    monkeypatch.setattr("adaptok.benchmark.generation.VARYING_BATCH", 2)
    flags = ["--size", "S", "--clips", 2, "--tokens", 8, "--dtype", "float32", "--repeats", 1, "--device", "cpu"]
    sampled, slots = run(capsys, "benchmark", "generate", *flags)["results"]
    assert sampled["more"]["tokens_per_second"] == pytest.approx(2 * (8 + 4) / sampled["median_s"])
    assert sampled["more"]["bandwidth_fraction"] > 0
    assert 0.5 < slots["more"]["occupied_slots"] <= 1


@needs_onednn
def test_a_generator_with_int8_weights(capsys):
    """A given generator is measured, and the cross-entropy of its samples hardly changes."""
    folder = Path(__file__).parents[1] / "fixtures" / "predictor"
    flags = ["--clips", 1, "--tokens", 8, "--repeats", 1, "--device", "cpu", "--weights", "int8", "--generator", folder]
    [sampled] = run(capsys, "benchmark", "generate", *flags)["results"]
    assert (sampled["settings"]["weights"], sampled["settings"]["dtype"]) == ("int8", "bfloat16")
    assert 0 < sampled["more"]["weights_gb"] < (folder / "model.safetensors").stat().st_size / 2e9
    assert 0 < abs(sampled["more"]["cross_entropy_change"]) < 0.005
    assert "exclude each other" in fails(capsys, "benchmark", "generate", *flags, "--size", "S")


def test_training_in_another_precision(capsys, monkeypatch, tmp_path):
    """Every process of a measurement has the same options."""
    measured, seen = Measurement("step", {}, 1.0, 1.0, 1.0, repeats=1, memory_gb=15.0), []
    apart = lambda kind, flags: seen.append([*map(str, flags)]) or [measured]  # noqa: E731
    for module in ("timing", "training"):
        monkeypatch.setattr(f"adaptok.benchmark.{module}.measure_in_process", apart)
    flags = ["--preset", "tiny", "base", "--dtype", "float32", "--checkpointing", "--data", tmp_path]
    run(capsys, "benchmark", "train", *flags)
    assert [each[1] for each in seen] == ["tiny", *["base"] * (len(seen) - 1)]
    assert all(each[-5:] == ["--data", str(tmp_path), "--checkpointing", "--dtype", "float32"] for each in seen)
    assert configuration("tiny", 2, 3, tmp_path, False, "float32").precision == "float32"

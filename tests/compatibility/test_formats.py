"""Files that version 0.1.0 wrote still load, and give the numbers that they gave then.

`tests/fixtures/make_formats.py` says how the files were made. They are never written anew: where a format changes, the
program keeps reading the old one.
"""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from adaptok import AdapTok, Generator, VideoTokens
from adaptok.cli.main import main
from adaptok.data.token_datasets import TokenDataset
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
NUMBERS = json.loads((FORMATS / "expected.json").read_text())
TENSORS = load_file(FORMATS / "expected.safetensors")
CHANGED = 1_700_000_000
"""Time of change of every video, in seconds, in the plans of the evaluations."""
CLASSES = ["bounce", "orbit", "slide", "spin"]
DRAWN = torch.empty(10).bernoulli_(0.3, generator=torch.Generator().manual_seed(3)).nonzero().flatten().tolist()
SAME_DRAWS = DRAWN == [0, 1, 3, 6]
"""PyTorch draws the same dropout and multinomial numbers as it did for the fixtures. Version 2.6 draws others."""
DRY_RUN = ("parameters", "steps", "warmup_steps", "clips_per_step", "gflop_per_step", "validation_clips")


def run(capsys, *arguments: object) -> dict:
    """What a command prints as JSON. Every test that starts a command does it here."""
    capsys.readouterr()
    main([*map(str, arguments), "--json", "--quiet"])
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """The fixtures, as they were when they were written: the paths of plans and the times of change of videos."""
    folder = tmp_path_factory.mktemp("compatibility") / "formats"
    shutil.copytree(FORMATS, folder)
    for plan in folder.glob("token-datasets/*/plan.json"):
        plan.write_text(plan.read_text().replace("/formats", str(folder)))
    for video in folder.rglob("*.mp4"):
        os.utime(video, (CHANGED, CHANGED))
    return folder


@pytest.fixture(autouse=True)
def formats(copied, monkeypatch) -> Path:
    """The working directory. One thread, as sums depend on the number of threads."""
    monkeypatch.chdir(copied)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield copied
    torch.set_num_threads(threads)


def assert_close(actual, name: str, atol: float = 1e-5) -> None:
    """Assert that a tensor or array is the expected one: integers exactly, images of bytes to one level."""
    expected = TENSORS[name]
    actual = torch.as_tensor(np.asarray(actual))
    assert actual.shape == expected.shape
    if expected.dtype == torch.uint8:
        assert (actual.int() - expected.int()).abs().max() <= 1
    elif not expected.is_floating_point():
        assert torch.equal(actual.to(expected.dtype), expected)
    else:
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=atol)


def shown_clips() -> torch.Tensor:
    """Two clips `[2, 3, 8, 32, 32]` that need no file."""
    return torch.from_numpy(np.random.default_rng(4).random((2, 3, 8, 8, 8), np.float32)).repeat(1, 1, 1, 4, 4)


@pytest.mark.parametrize("name", ["model", "model-modern"])
def test_models(capsys, name):
    codec = AdapTok.from_pretrained(name, device="cpu")
    assert codec.weights_hash == NUMBERS["weights_hash"][name]
    latents = codec.encode_clips(shown_clips())
    assert_close(latents.ids, f"{name}.ids")
    assert_close(codec.score_clips(latents, normalized=False), f"{name}.scores")
    clips = codec.decode_clips(TENSORS[f"{name}.ids"], [[8, 6, 2, 4]] * 2)
    assert_close(clips[..., ::4, ::4], f"{name}.clips")
    assert codec.weights_hash in run(capsys, "info", name).values()


@pytest.mark.parametrize(("name", "codec"), [("generator", "model"), ("generator-frames", "model-modern")])
def test_generators(name, codec):
    generator = Generator.from_pretrained(name, codec=codec, device="cpu")
    by_class = name == "generator"
    condition = torch.tensor([0, 2]) if by_class else torch.arange(32).view(2, 16)
    assert_close(generator(torch.arange(12).view(2, 6), condition), f"{name}.logits")
    if by_class:
        ids, lengths = generator.sample(CLASSES, seeds=[0, 1, 2, 3])
        assert_close(ids, "generator.samples")
        assert_close(lengths, "generator.sample_lengths")


@pytest.mark.parametrize("name", ["scores", "plain", "middle"])
def test_token_files(capsys, tmp_path, name):
    path = Path("token-files") / f"{name}.adaptok"
    tokens = VideoTokens.load(path)
    assert_close(tokens.ids.astype(np.int64), f"tokens.{name}.ids")
    assert_close(tokens.lengths, f"tokens.{name}.lengths")
    assert (tokens.scores is None) == (name == "plain")
    if tokens.scores is not None:
        assert_close(tokens.scores, f"tokens.{name}.scores")
    codec = AdapTok.from_pretrained("model", device="cpu")
    clips = torch.cat(list(codec.iter_decode_clips(tokens)), 1)
    assert_close(clips[:, :, ::2, ::2], f"tokens.{name}.clip")
    assert_close(codec.decode(path)[:, ::4, ::4].copy(), f"tokens.{name}.frames")
    run(capsys, "decode", path, tmp_path / "out.mp4", "--model", "model", "--device", "cpu")
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_a_token_file_is_truncated_by_its_scores():
    assert_close(VideoTokens.load("token-files/scores.adaptok").truncate(10).lengths, "tokens.truncated")


def test_the_same_video_gives_the_same_token_file(capsys, tmp_path):
    out = tmp_path / "wide.adaptok"
    run(capsys, "encode", "wide.mp4", out, "--model", "model", "--device", "cpu", "--budget", 20, "--fit", "crop")
    tokens = VideoTokens.load(out)
    assert_close(tokens.ids.astype(np.int64), "tokens.scores.ids")
    assert_close(tokens.lengths, "tokens.scores.lengths")
    assert_close(tokens.scores, "tokens.scores.scores")


def assert_dataset(folder: Path | str, name: str) -> None:
    rows = list(TokenDataset.open(folder))
    assert_close(np.concatenate([row.ids for row in rows]).astype(np.int64), f"dataset.{name}.ids")
    assert_close(np.stack([row.lengths for row in rows]), f"dataset.{name}.lengths")
    assert [[row.label, row.source, row.start] for row in rows] == NUMBERS[f"dataset.{name}"]
    if name == "frames":
        assert_close(np.stack([row.condition for row in rows]).astype(np.int64), f"dataset.{name}.condition")


@pytest.mark.parametrize("name", ["labels", "frames"])
def test_token_datasets(name):
    assert_dataset(Path("token-datasets") / name, name)


LABELS = ("--model", "model", "--budget", 18, "--stride", 4, "--shard-clips", 8)
FRAMES = ("--model", "model-modern", "--budget", 20, "--condition-frames", 3, "--scope", "clip", "--fps", 16)


@pytest.mark.parametrize(
    ("name", "source", "flags"),
    [("labels", "clips", LABELS), ("frames", "list.csv", (*FRAMES, "--limit", 1, "--shard-clips", 8))],
)
def test_an_unfinished_token_dataset_is_finished(capsys, tmp_path, name, source, flags):
    out = tmp_path / name
    shutil.copytree(Path("token-datasets") / name, out)
    max(out.glob("*.parquet")).unlink()
    done = run(capsys, "tokenize", source, "--out", out, "--device", "cpu", *flags)
    assert done["written"] == 1
    assert_dataset(out, name)


@pytest.mark.parametrize("source", ["index.parquet", "list.csv", "list-official.csv", "list.txt"])
def test_lists_of_videos(capsys, tmp_path, source):
    out = tmp_path / "tokens"
    flags = ("--model", "model", "--device", "cpu", "--budget", 32, "--limit", 1, "--uniform")
    assert run(capsys, "tokenize", source, "--out", out, *flags)["clips"] == 8
    actual = {(Path(row.source).parent.name, row.label) for row in TokenDataset.open(out)}
    numbered = source == "list.txt"  # without classInd.txt
    assert actual == {(name, str(number) if numbered else name) for number, name in enumerate(CLASSES)}


def test_drawn_shapes_are_kept(capsys):
    before = {path: path.stat().st_mtime for path in Path("clips").rglob("*.mp4")}
    flags = ("--size", 32, "--frames", 12, "--seed", 3, "--crf", 20)
    run(capsys, "data", "shapes", "clips", "--clips", 8, *flags)
    assert {path: path.stat().st_mtime for path in Path("clips").rglob("*.mp4")} == before


def dry_run(capsys, path: Path) -> dict:
    """Numbers that follow from a configuration. Presets are given the data of the fixtures."""
    stage = yaml.safe_load(path.read_text())["stage"]
    flags = []
    if path.parent.name == "presets":
        frames = path.stem in ("base-predictor", "tiny-generator")
        data = "clips" if stage != "generator" else f"token-datasets/{'frames' if frames else 'labels'}"
        flags = ["--data.train", data, "--data.validation", "None"]
    if stage == "tokenizer":  # what a start needs and is lacking here
        flags += ["--lpips-weights", "None", "--lpips-alex-weights", "None", "--no-sharding", "--trackers", "none"]
    document = run(capsys, "train", stage, "--config", path, "--dry-run", *flags)
    return {name: document[name] for name in DRY_RUN}


def assert_numbers(actual: dict, expected: dict, rel: float = 1e-5) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == (value if isinstance(value, dict) else pytest.approx(value, rel=rel)), name


@pytest.mark.parametrize("name", sorted(NUMBERS["dry_runs"]))
def test_training_configurations(capsys, name):
    assert_numbers(dry_run(capsys, Path("training") / f"{name}.yaml"), NUMBERS["dry_runs"][name])


@pytest.mark.parametrize("name", sorted(NUMBERS["presets"]))
def test_presets(capsys, name):
    assert_numbers(dry_run(capsys, Path("presets") / f"{name}.yaml"), NUMBERS["presets"][name])


@pytest.mark.parametrize(
    ("stage", "config"), [*product(["tokenizer", "scorer", "generator"], ["run"]), ("generator", "own")]
)
def test_runs_are_resumed(capsys, tmp_path, stage, config):
    """Runs of 8 steps with a checkpoint at step 4 and metrics up to step 6, from the file that they were started with,
    or from their own config.yaml."""
    folder = tmp_path / stage
    shutil.copytree(Path("runs") / stage, folder)
    path = folder / "config.yaml" if config == "own" else f"training/{stage}-run.yaml"
    run(capsys, "train", stage, "--config", path, "--out", folder)
    actual = load_file(folder / "model" / "model.safetensors")
    prefix = f"runs.{stage}."
    assert actual.keys() == {name.removeprefix(prefix) for name in TENSORS if name.startswith(prefix)}
    for name, tensor in actual.items():
        assert_close(tensor, prefix + name, atol=1e-6 if SAME_DRAWS else 0.01)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 9))
    expected = NUMBERS["runs"][stage]  # newer versions measure more
    assert_numbers({name: lines[-1][name] for name in expected}, expected, rel=1e-4 if SAME_DRAWS else 0.2)


def test_unfinished_runs_are_exported(capsys, tmp_path):
    for stage in ("tokenizer", "scorer", "generator"):
        assert run(capsys, "export", Path("runs") / stage, tmp_path / stage)["step"] == 4
    AdapTok.from_pretrained(tmp_path / "scorer", device="cpu")
    Generator.from_pretrained(tmp_path / "generator", codec="model", device="cpu")


def test_reports_are_compared(capsys):
    compared = run(capsys, "compare", "reports/a", "reports/b")
    assert compared["same_clips"]
    assert not compared["differs"]
    assert [f"{result['budget']:g}" for result in compared["results"]] == list(NUMBERS["comparison"])
    for result, expected in zip(compared["results"], NUMBERS["comparison"].values(), strict=True):
        actual = {name: [each["a"], each["b"]] for name, each in result["metrics"].items()}
        assert_numbers(actual, expected)
    main(["compare", "reports/a", "reports/b"])
    printed = capsys.readouterr().out
    assert all(f"{value:.2f} dB" in printed for value in NUMBERS["comparison"]["12"]["psnr"])


def test_an_unfinished_evaluation_is_finished(capsys, tmp_path):
    """One video is measured again, the others are read from partial results."""
    out = tmp_path / "report"
    shutil.copytree("reports/a", out)
    for name in ("report.json", "metrics.parquet", "parts/0000003.safetensors"):
        (out / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("parts/*")}
    metrics = ("--metrics", "psnr", "psnr_frame", "ssim", "edge_ratio", "sharpness")
    flags = ("--model", "model", "--device", "cpu", "--budgets", 12, 24, *metrics)
    run(capsys, "evaluate", "clips", "--out", out, *flags)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for result in run(capsys, "compare", "reports/a", out)["results"]:
        for actual in result["metrics"].values():
            assert actual["difference"] == pytest.approx(0, abs=1e-4)


def test_feature_statistics():
    other = FeatureStatistics.of(np.random.default_rng(2).normal(size=(7, 5)))
    distance = frechet_distance(FeatureStatistics.load("statistics.safetensors"), other)
    assert distance == pytest.approx(NUMBERS["frechet_distance"], rel=1e-9)


def test_an_unfinished_folder_of_samples_is_finished(capsys, tmp_path):
    out = tmp_path / "samples"
    shutil.copytree("samples", out)
    flags = ("--generator", "generator", "--model", "model", "--device", "cpu", "--label", "orbit", "spin")
    done = run(capsys, "generate", "--out", out, *flags, "-n", 3, "--temperature", 0.9, "--top-k", 20)
    assert done["sampled"] == 1

"""Evaluations: independence of batches, processes and interruptions; figures against plain code; bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from adaptok.allocation.policy import LengthPolicy
from adaptok.cli.main import main
from adaptok.codec.codec import AdapTok
from adaptok.evaluation.comparison import compare_reports
from adaptok.evaluation.examples import load_examples
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.pairs import PairsEvaluation
from adaptok.evaluation.partial_results import PartialResult, PartialResults
from adaptok.evaluation.protocols import ClipSelection, resize_then_crop
from adaptok.evaluation.report.build import build, write
from adaptok.evaluation.report.clip_table import clip_rows
from adaptok.evaluation.results import read_report
from adaptok.evaluation.summary import summarize
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from adaptok.metrics.distortion import block_distortion, edge_ratio, sharpness
from adaptok.metrics.similarity import frame_ssim
from adaptok.video.reading import read_video
from tests.helpers.detector import Detector
from tests.helpers.videos import write_video

BUDGETS = (12.0, 20.0, 32.0)
FRAMES = {"a/one": 19, "a/two": 8, "b/three": 25}


@pytest.fixture
def data(tmp_path):
    for name, count in FRAMES.items():
        write_video(tmp_path / "data" / f"{name}.mp4", count)
    write_video(tmp_path / "data" / "short.mp4", 5)
    (tmp_path / "data" / "broken.mp4").write_bytes(b"nothing")
    return tmp_path / "data"


def measures():
    return Measures(detector=Detector(), detector_name="stand-in")


def evaluate(codec, data, folder, processes=1, **options):
    """Report and table, without what differs from run to run."""
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS, **options)
    results = PartialResults(folder, evaluation.plan)
    for rank in reversed(range(processes)):
        results.measure(evaluation, rank, processes)
    summary = summarize(results, evaluation.variants, evaluation.tokens)
    document = build(results, summary, {}, {}).document()
    rows = [r for each in results for r in clip_rows(each, evaluation.variants, summary.metrics, evaluation.tokens)]
    return {name: document[name] for name in ("data", "results", "metrics", "examples")}, rows


def assert_same(one, other):
    """Assert that numbers agree within 1e-6 and everything else is equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    else:
        assert one == other


@pytest.fixture
def one_thread():
    """The rounding of multi-threaded matrix products depends on the batch size, and random weights amplify it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("protocol", ["all", "official"])
@pytest.mark.parametrize("scope", ["video", "clip", "stream"])
def test_batches_and_processes_change_nothing(codec, data, tmp_path, protocol, scope):
    options = {"protocol": protocol, "scope": scope}
    expected = evaluate(codec, data, tmp_path / "0", batch_size=1, **options)
    assert_same(expected, evaluate(codec, data, tmp_path / "1", batch_size=4, **options))
    assert evaluate(codec, data, tmp_path / "2", processes=3, batch_size=1, **options) == expected
    document, rows = expected
    official = protocol == "official"
    assert document["data"]["clips"] == (4 if official else 2 + 1 + 3)  # a short one repeats its last frame there
    assert len(rows) == document["data"]["clips"] * len(BUDGETS)
    assert set(document["data"]["skipped"]) == {"broken.mp4"} | (set() if official else {"short.mp4"})


def test_the_official_batch_scope(codec, data, tmp_path):
    (data / "broken.mp4").unlink()  # it would leave a batch of one
    document, rows = evaluate(codec, data, tmp_path / "0", scope="batch", batch_size=2, protocol="official")
    for budget in BUDGETS:
        lengths = np.array([row["lengths"] for row in rows if row["budget"] == budget])
        assert (lengths[:2].sum(0) == lengths[2:].sum(0)).all()  # the same block of both clips of a batch shares
        assert lengths.sum() <= budget * len(lengths)
    assert document["data"]["clips"] == 4


def test_interrupted_evaluations_resume(codec, data, tmp_path, monkeypatch):
    expected = evaluate(codec, data, tmp_path / "whole")
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS)
    measured, measure = [], TokenizerEvaluation.measure

    def some(task, unit):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(unit)
        return measure(task, unit)

    monkeypatch.setattr(TokenizerEvaluation, "measure", some)
    with pytest.raises(KeyboardInterrupt):
        evaluate(codec, data, tmp_path / "parts")
    monkeypatch.setattr(TokenizerEvaluation, "measure", measure)
    assert len(PartialResults(tmp_path / "parts", evaluation.plan).missing()) == 3
    assert evaluate(codec, data, tmp_path / "parts") == expected
    with pytest.raises(ValueError, match="holds an evaluation with other scope; choose another folder"):
        evaluate(codec, data, tmp_path / "parts", scope="clip")
    write_video(data / "a/two.mp4", 9)  # another file under the name of one that was measured
    with pytest.raises(ValueError, match="with other videos"):
        evaluate(codec, data, tmp_path / "parts")


def test_figures_against_plain_code(codec, data, tmp_path):
    """Gain, saving, visible patches, sharpness, use of the codebook and calibration, from the public interface."""
    document, _ = evaluate(codec, data, tmp_path / "0")
    pt, most = codec.config.tokenizer.temporal_patch_size, codec.config.tokenizer.quantizer.codebook_size
    names = ("adaptive", "uniform", "edge_ratio", "sharpness", "ids", "pairs")
    found = {budget: {name: [] for name in names} for budget in BUDGETS}
    for name in FRAMES:
        clips = torch.stack(list(ClipSelection("all", 8, 16).clips(data / f"{name}.mp4")))
        full = codec.encode(clips)
        for budget, each in found.items():
            for way in ("adaptive", "uniform"):
                policy = LengthPolicy(budget, uniform=way == "uniform")
                tokens = full.shorten(policy.lengths(full.scores, len(full.lengths), codec.layout))
                made = torch.stack(list(codec.iter_decode_clips(tokens)))
                mse = (made.double() - clips.double()).square().mean((1, 2, 3, 4))
                each[way] += (-10 * mse.log10()).tolist()
                if way == "adaptive":
                    each["ids"] += tokens.ids.tolist()
                    each["edge_ratio"] += edge_ratio(made, codec.config.tokenizer.patch_size).tolist()
                    each["sharpness"] += sharpness(made, clips).tolist()
                    actual = block_distortion(made, clips, codec.config.scorer.distortion, pt).flatten()
                    column = tokens.lengths // codec.length_step - 1
                    predicted = tokens.scores[np.arange(len(column)), column]
                    each["pairs"] += zip(predicted.tolist(), actual.tolist(), strict=True)
    for result in document["results"]:
        each = found[result["budget"]]
        adaptive, uniform = np.mean(each["adaptive"]), np.mean(each["uniform"])
        assert result["adaptive"]["psnr"] == pytest.approx(adaptive, abs=1e-5)
        assert result["uniform"]["psnr"] == pytest.approx(uniform, abs=1e-5)
        assert result["gain"]["psnr"] == pytest.approx(adaptive - uniform, abs=1e-5)
        for name in ("edge_ratio", "sharpness"):
            assert result["adaptive"][name] == pytest.approx(np.mean(each[name]), rel=1e-4)
        less = result["uniform"]["edge_ratio"] - result["adaptive"]["edge_ratio"]
        assert result["gain"]["edge_ratio"] == pytest.approx(less)
        assert "sharpness" not in result["gain"]  # neither more nor less is better
        codebook = result["adaptive"]["codebook"]
        counts = np.bincount(each["ids"], minlength=most)
        fractions = counts[counts > 0] / counts.sum()
        assert codebook["used_fraction"] == pytest.approx((counts > 0).mean())
        assert codebook["entropy"] == pytest.approx(-(fractions * np.log2(fractions)).sum())
        predicted, actual = np.array(each["pairs"]).T
        calibration = result["adaptive"]["calibration"]
        assert calibration["blocks"] == len(predicted)
        assert calibration["mean_relative_error"] == pytest.approx(np.abs(predicted / actual - 1).mean(), rel=1e-5)
    curve = sorted((np.mean(found[b]["uniform"]), b) for b in BUDGETS)
    for result in document["results"]:
        wanted, saving = result["adaptive"]["psnr"], result["saving"]["psnr"]
        if curve[0][0] <= wanted <= curve[-1][0]:
            needed = np.interp(wanted, *zip(*curve, strict=True))
            assert saving["uniform_tokens"] == pytest.approx(needed, rel=1e-4)
            assert saving["saved"] == pytest.approx(1 - result["adaptive"]["tokens_per_clip"] / needed, abs=1e-4)
        else:
            assert saving is None


def test_the_table_and_the_pages(codec, data, tmp_path):
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS)
    folder = tmp_path / "report"
    results = PartialResults(folder, evaluation.plan)
    results.measure(evaluation)
    summary = summarize(results, evaluation.variants, evaluation.tokens)
    report = build(results, summary, {"fvd": "why"}, {"processor": "p", "device": "cpu", "threads": 1})
    write(folder, report, results, summary, load_examples(evaluation, results, summary.examples))
    assert read_report(folder) == report
    table = pq.read_table(folder / "metrics.parquet").to_pylist()
    for result in report.results:
        rows = [row for row in table if row["budget"] == result.budget]
        for metric in ("psnr", "psnr_frame", "ssim", "ms_ssim", "edge_ratio", "sharpness"):
            assert np.mean([row[metric] for row in rows]) == pytest.approx(result.adaptive.value(metric))
            assert np.mean([row[f"uniform_{metric}"] for row in rows]) == pytest.approx(result.uniform.value(metric))
        assert sum(row["tokens"] for row in rows) / len(rows) == pytest.approx(result.adaptive.tokens_per_clip)
    html = (folder / "report.html").read_text()
    assert html.count("<svg") == 7 + len(BUDGETS) + 1
    assert "data:image/jpeg;base64," in html
    for address in ("http:", "https:", 'src="/', "@import"):
        assert address not in html
    assert set(re.findall(r"url\((.)", html)) == {"#"}  # clip paths of the same page
    assert not re.findall("#0a0[bc]0", html)  # placeholders of colours
    assert report.examples.worst[0].psnr <= report.examples.best[0].psnr
    markdown = (folder / "report.md").read_text()
    patch_size = f"{codec.config.tokenizer.patch_size} pixels"
    for text in (evaluation.plan.model_hash, "broken.mp4", "fvd skipped", report.data.sha256, patch_size):
        assert text in html
        assert text in markdown


def test_a_model_without_a_scorer(codec, data, tmp_path):
    codec.model.scorer = None
    codec.model.config = codec.model.config.model_copy(update={"scorer": None})
    document, rows = evaluate(AdapTok(codec.model, codec.weights_hash), data, tmp_path / "0")
    assert [result["variant"] for result in document["results"]] == ["uniform"] * 3
    assert all(sum(row["lengths"]) == row["budget"] for row in rows)


def test_two_folders(data, tmp_path, capsys):
    """The means over clips are printed, and pairs that do not fit are refused."""
    other = tmp_path / "other"
    for name, count in FRAMES.items():
        write_video(other / f"{name}.mkv", count, crf=45)
    (data / "broken.mp4").unlink()
    (data / "short.mp4").unlink()
    main(["evaluate", "--reference", str(data), "--prediction", str(other), "--json", "--quiet"])
    printed = json.loads(capsys.readouterr().out)
    psnr, ssim = [], []
    for name in FRAMES:
        true, made = (
            torch.from_numpy(read_video(folder / f"{name}{suffix}")[0]).permute(3, 0, 1, 2).double() / 255
            for folder, suffix in ((data, ".mp4"), (other, ".mkv"))
        )
        for a, b in zip(true.split(16, 1), made.split(16, 1), strict=True):
            psnr.append(-10 * (a - b).square().mean().log10().item())
            ssim.append(frame_ssim(a[None].float(), b[None].float()).mean().item())
    assert printed["psnr"] == pytest.approx(np.mean(psnr), abs=1e-5)
    assert printed["ssim"] == pytest.approx(np.mean(ssim), abs=1e-5)
    assert printed["data"]["clips"] == 5
    assert printed["protocol"]["patch_size"] == 16
    flags = ["--patch-size", "8", "--metrics", "edge_ratio", "sharpness"]
    main(["evaluate", "--reference", str(data), "--prediction", str(other), *flags, "--json", "--quiet"])
    finer = json.loads(capsys.readouterr().out)
    assert finer["metrics"] == ["edge_ratio", "sharpness"]
    assert finer["protocol"]["patch_size"] == 8
    assert finer["sharpness"] == printed["sharpness"]
    clips = [
        torch.from_numpy(read_video(other / f"{name}.mkv")[0]).permute(3, 0, 1, 2)[None].split(16, 2) for name in FRAMES
    ]
    for document, patch in ((printed, 16), (finer, 8)):
        expected = np.mean([edge_ratio(clip, patch).item() for video in clips for clip in video])
        assert document["edge_ratio"] == pytest.approx(expected, rel=1e-4)
    write_video(other / "a/one.mkv", 18)
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--reference", str(data), "--prediction", str(other), "--quiet"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert "one.mkv: does not fit" in error
    assert "2 frames of 64x48 against 3 frames of 64x48" in error
    (other / "a/one.mkv").unlink()
    with pytest.raises(ValueError, match=r"has no a/one \(1 of 3 are missing\)"):
        PairsEvaluation(Measures(), data, other)


def test_clips_without_a_number(tmp_path, capsys):
    """A clip with a flat original has no sharpness: the mean leaves it out, and the report says so."""
    for side in ("reference", "prediction"):
        write_video(tmp_path / side / "good.mp4", 16)
        write_video(tmp_path / side / "flat.mp4", 16, size=(8, 8) if side == "reference" else (16, 16))
    command = ["evaluate", "--reference", str(tmp_path / "reference"), "--prediction", str(tmp_path / "prediction")]
    command += ["--size", "16", "--patch-size", "8", "--quiet"]
    main([*command, "--json", "--out", str(tmp_path / "report")])
    printed = json.loads(capsys.readouterr().out)
    assert printed["sharpness"] == pytest.approx(1)
    assert printed["undefined"] == {"sharpness": 1}
    assert "sharpness undefined: for 1 of 2 clips" in (tmp_path / "report" / "report.md").read_text()
    table = pq.read_table(tmp_path / "report" / "metrics.parquet").to_pylist()
    assert [row["sharpness"] for row in table] == [None, pytest.approx(1)]
    main([*command, "--json", "--out", str(tmp_path / "none"), "--patch-size", "16"])  # no border in the frame
    printed = json.loads(capsys.readouterr().out)
    assert printed["edge_ratio"] is None
    assert printed["undefined"] == {"edge_ratio": 2, "sharpness": 1}
    found = compare_reports(tmp_path / "report", tmp_path / "none")
    assert found.differs == ["patch_size"]
    assert "edge_ratio" not in found.results[0].metrics
    assert found.results[0].metrics["sharpness"].difference == 0


def test_charts_of_clips_without_a_number(codec, data, tmp_path):
    """Infinite and NaN metrics do not break the pages."""
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS)
    results = PartialResults(tmp_path, evaluation.plan)
    results.measure(evaluation)
    for unit in range(evaluation.plan.units):
        result = PartialResult.load(results.path(unit))
        if result.clips:
            result.arrays["metrics"][0, 1, -2:] = np.inf, np.nan  # of one variant
            result.arrays["metrics"][:, :, 0] = np.nan
            result.save(results.path(unit))
    summary = summarize(results, evaluation.variants, evaluation.tokens)
    report = build(results, summary, {}, {})
    document = report.document()
    assert document["undefined"] == {"psnr": 6, "edge_ratio": 3, "sharpness": 3}
    assert document["examples"] == {"best": [], "worst": []}
    write(tmp_path, report, results, summary, load_examples(evaluation, results, summary.examples))
    json.dumps(document, allow_nan=False)
    assert document["results"][0]["adaptive"]["psnr"] is None
    for way in ("adaptive", "uniform"):  # over the same clips
        kept = [
            PartialResult.load(results.path(unit)).arrays.get("metrics", np.empty((0, 6, 6)))[1:] for unit in range(5)
        ]
        mean = np.concatenate(kept)[:, ("adaptive", "uniform").index(way), -1].mean()
        assert document["results"][0][way]["sharpness"] == pytest.approx(mean)


def test_evaluations_of_an_older_version_resume(data, tmp_path):
    """Plans without a patch size belong to evaluations without the edge ratio."""
    evaluation = PairsEvaluation(Measures(("psnr", "ssim")), data, data)
    PartialResults(tmp_path / "out", evaluation.plan)
    file = tmp_path / "out" / "plan.json"
    plan = json.loads(file.read_text())
    assert plan.pop("patch_size") is None
    file.write_text(json.dumps(plan))
    assert PartialResults(tmp_path / "out", evaluation.plan).missing() == list(range(len(FRAMES) + 2))
    with pytest.raises(ValueError, match="with other metrics, patch_size; choose another folder"):
        PartialResults(tmp_path / "out", PairsEvaluation(Measures(), data, data).plan)


def test_the_official_resize():
    """torchvision's order and rounding: 320 x 240 becomes 170 x 128, cropped from column 21."""
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    whole = torch.nn.functional.interpolate(picture, (128, 170), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize_then_crop(frame, 128)[:, 0], whole[0, :, :, 21:149])
    small = frame[:128]
    torch.testing.assert_close(resize_then_crop(small, 128)[:, 0], picture[0, :, :128, 96:224])


def test_bad_input(codec, data, tmp_path, capsys):
    codec.save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--quiet"]
    for arguments, words in (
        ([], "nothing to evaluate: give DATA, or --reference and --prediction"),
        ([str(data), "--reference", str(data)], "--reference and --prediction go together"),
        ([str(tmp_path / "nowhere")], "no such folder or list of files"),
        ([str(tmp_path / "model")], ": no videos, expected .avi"),
        ([str(data), "--budgets", "1000"], "budget 1000.0, expected 8 to 32 tokens per clip"),
        ([str(data), "--metrics", "lpips_vgg", "--lpips-vgg", "x.pth"], "x.pth: no such file"),
        ([str(data), "--metrics", "vmaf"], "vmaf"),
        ([str(data), "--patch-size", "8"], "--patch-size are for --reference and --prediction; a model has its own"),
        (["--reference", str(data), "--prediction", str(data), "--patch-size", "1"], "--patch-size 1, expected 2"),
        ([str(data), "--samples", str(data), "--statistics", "x"], "--samples is compared with DATA or with"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", *arguments, *flags])
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1

"""Evaluation of two folders of videos."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from adaptok.cli.main import main
from adaptok.evaluation.comparison import compare_reports
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.pairs import PairsEvaluation
from adaptok.metrics.distortion import edge_ratio
from adaptok.metrics.similarity import frame_ssim
from adaptok.video.reading import read_video
from tests.helpers.evaluation import FRAMES
from tests.helpers.videos import write_video


def test_two_folders(data, tmp_path, capsys):
    """The means over clips are printed, and pairs that do not fit are refused."""
    other = tmp_path / "other"
    for name, count in FRAMES.items():
        write_video(other / f"{name}.mkv", count, crf=45)
    (data / "broken.mp4").unlink()
    (data / "short.mp4").unlink()
    main(["evaluate", "files", "--reference", str(data), "--prediction", str(other), "--json", "--quiet"])
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
    main(["evaluate", "files", "--reference", str(data), "--prediction", str(other), *flags, "--json", "--quiet"])
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
        main(["evaluate", "files", "--reference", str(data), "--prediction", str(other), "--quiet"])
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
    command = [
        "evaluate",
        "files",
        "--reference",
        str(tmp_path / "reference"),
        "--prediction",
        str(tmp_path / "prediction"),
    ]
    command += ["--size", "16", "--patch-size", "8", "--quiet"]
    main([*command, "--json", "--output", str(tmp_path / "report")])
    printed = json.loads(capsys.readouterr().out)
    assert printed["sharpness"] == pytest.approx(1)
    assert printed["undefined"] == {"sharpness": 1}
    assert "sharpness undefined: for 1 of 2 clips" in (tmp_path / "report" / "report.md").read_text()
    table = pq.read_table(tmp_path / "report" / "metrics.parquet").to_pylist()
    assert [row["sharpness"] for row in table] == [None, pytest.approx(1)]
    main([*command, "--json", "--output", str(tmp_path / "none"), "--patch-size", "16"])  # no border in the frame
    printed = json.loads(capsys.readouterr().out)
    assert printed["edge_ratio"] is None
    assert printed["undefined"] == {"edge_ratio": 2, "sharpness": 1}
    result = compare_reports(tmp_path / "report", tmp_path / "none")
    assert result.differs == ["patch_size"]
    assert "edge_ratio" not in result.results[0].metrics
    assert result.results[0].metrics["sharpness"].difference == 0

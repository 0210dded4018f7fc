"""Measure quality over tokens, with adaptive and uniform lengths, beside H.264 and AV1 at equal bits.

python experiments/quality.py FOLDER [--model MODEL] [--clips 4] [--plot quality.png] [--json]

Measured are the first whole clips of every video (at most `--clips` of 16 frames), short side resized, centre
cropped. PSNR is computed from the mean squared error of a video and SSIM is the mean over its frames; figures are
means over videos. A token counts as log2(codebook size) bits. H.264 is libx264 with preset veryslow, AV1 is SVT-AV1
with preset 4. Each video is encoded at several quality settings and its quality is interpolated at the number of
bits; it has none where its lowest setting takes more bits. Containers are not counted. The stream is all videos
joined into one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray

from adaptok import AdapTok, LengthPolicy, VideoTokens
from adaptok.codec.length_selection import measure_block
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.metrics.correlation import rank_correlation
from adaptok.metrics.distortion import psnr
from adaptok.metrics.similarity import frame_ssim
from adaptok.video.geometry import Geometry
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sources import open_frames

RATE = 30
FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
CLIP_FRAMES = 16
CODECS: dict[str, tuple[str, str, dict[str, str], range]] = {
    "H.264 (libx264 veryslow)": ("libx264", "h264", {"preset": "veryslow"}, range(19, 52, 4)),
    "AV1 (SVT-AV1)": ("libsvtav1", "libdav1d", {"preset": "4"}, range(19, 64, 6)),
}
"""Encoder, decoder, options and constant rate factors of each video codec."""
os.environ.setdefault("SVT_LOG", "1")  # errors only

Frames = NDArray[np.uint8]


class Point(NamedTuple):
    """Tokens or bits per clip of 16 frames, and the quality at that cost."""

    cost: float
    psnr: float
    ssim: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="model folder or hub id; the bundled model by default")
    parser.add_argument("--clips", type=int, default=4, help="maximum number of clips per video")
    parser.add_argument("--plot", type=Path, help="image of the curves to write")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-codecs", action="store_true", help="skip H.264 and AV1")
    options = parser.parse_args()
    codec = AdapTok.from_pretrained(options.model)
    videos = [square_frames(entry.path, codec, options.clips) for entry in find_entries(options.folder, VIDEO_SUFFIXES)]
    report = measure(codec, videos)
    if not options.no_codecs:
        report["codecs"] = {name: conventional(name, videos, report["bits"]) for name in CODECS}
    if options.plot is not None:
        draw(report, options.plot)
    if options.json:
        print(json.dumps(report))
        return
    for name in ("uniform", "adaptive", *report.get("codecs", {})):
        points = report["codecs"][name] if name in report.get("codecs", {}) else report[name]
        for fraction, point in zip(FRACTIONS, points, strict=True):
            if fraction in (0.125, 0.25, 0.5, 1.0) and point["psnr"] is not None:
                print(f"{name:26} {fraction:6.1%}: {point['psnr']:.2f} dB, SSIM {point['ssim']:.3f}")
    for name in ("saving", "stream", "scores"):
        print(name, {key: round(value, 4) for key, value in report[name].items()})


def square_frames(path: Path, codec: AdapTok, clips: int) -> Frames:
    """Read the whole clips of a video at the model's size: `[T, S, S, 3]`."""
    size = codec.config.tokenizer.size
    with open_frames(path) as source:
        geometry = Geometry("crop", source.width, source.height, size)
        frames = [clip_to_frames(geometry.apply(frame[None])) for frame in islice(source.frames, clips * CLIP_FRAMES)]
    return np.concatenate(frames[: len(frames) // CLIP_FRAMES * CLIP_FRAMES])


def measure(codec: AdapTok, videos: list[Frames]) -> dict[str, Any]:
    """Measure the curves, the saving of adaptive lengths, the stream, and the accuracy of the scores."""
    max_budget = codec.max_budget
    curves: dict[str, list[Point]] = {"uniform": [], "adaptive": []}
    fulls = [codec.encode(video) for video in videos]
    for fraction in FRACTIONS:
        for name, points in curves.items():
            made = [shortened(codec, full, fraction * max_budget, uniform=name == "uniform") for full in fulls]
            points.append(
                average([quality(codec, t, v) for t, v in zip(made, videos, strict=True)], fraction * max_budget)
            )
    half = FRACTIONS.index(0.5)
    needed = cost_of(curves["uniform"], curves["adaptive"][half].psnr)
    bits = math.log2(codec.config.tokenizer.quantizer.codebook_size)
    return {
        "clips": sum(len(video) for video in videos) // codec.config.tokenizer.frames,
        "bits": [fraction * max_budget * bits for fraction in FRACTIONS],
        **{name: [point._asdict() for point in points] for name, points in curves.items()},
        "saving": {"uniform_tokens_for_adaptive_half": needed, "more": needed / (max_budget / 2) - 1},
        "stream": stream(codec, videos, max_budget / 2),
        "scores": scores(codec, videos),
    }


def shortened(codec: AdapTok, full: VideoTokens, budget: float, *, uniform: bool) -> VideoTokens:
    return full.shorten(LengthPolicy(budget, uniform=uniform).lengths(full.scores, len(full.lengths), codec.layout))


def quality(codec: AdapTok, tokens: VideoTokens, video: Frames) -> Point:
    made = torch.stack(list(codec.iter_decode_clips(tokens)))  # [n, C, T, S, S]
    true = torch.from_numpy(video).float().div(255).unflatten(0, (len(made), -1)).permute(0, 4, 1, 2, 3)
    error = (made - true).square().mean()
    return Point(float(tokens.lengths.sum()) / len(made), float(psnr(error)), float(frame_ssim(made, true).mean()))


def average(points: list[Point], cost: float) -> Point:
    return Point(cost, float(np.mean([p.psnr for p in points])), float(np.mean([p.ssim for p in points])))


def cost_of(points: list[Point], wanted: float) -> float:
    """Cost at which a curve reaches a PSNR, interpolated linearly between its points."""
    return float(np.interp(wanted, [p.psnr for p in points], [p.cost for p in points]))


def stream(codec: AdapTok, videos: list[Frames], budget: float) -> dict[str, float]:
    """Encode all videos joined as a live stream, as one video, and with uniform lengths."""
    whole = np.concatenate(videos)
    full = codec.encode(whole)
    live = codec.encode(whole, budget, "stream")
    results = {
        name: quality(codec, tokens, whole)
        for name, tokens in (
            ("stream", live),
            ("video", shortened(codec, full, budget, uniform=False)),
            ("uniform", shortened(codec, full, budget, uniform=True)),
        )
    }
    gain = results["video"].psnr - results["uniform"].psnr
    return {
        "seconds": len(whole) / RATE,
        "used_fraction": results["stream"].cost / budget,
        **{name: point.psnr for name, point in results.items()},
        "gain_lost": (results["video"].psnr - results["stream"].psnr) / gain,
    }


@torch.inference_mode()
def scores(codec: AdapTok, videos: list[Frames]) -> dict[str, float]:
    """Compare predicted and true distortion at every candidate length, with earlier blocks at full length."""
    c, scorer = codec.config.tokenizer, codec.config.scorer
    assert scorer is not None
    lengths = range(scorer.length_step, c.latents + 1, scorer.length_step)
    predicted, true = [], []
    for video in videos:
        clips = torch.from_numpy(video).float().div(255).unflatten(0, (-1, c.frames)).permute(0, 4, 1, 2, 3)
        latents = codec.encode_clips(clips)
        predicted.append(codec.score_clips(latents, normalized=False).flatten())
        blocks = []
        for i, block in enumerate(clips.split(c.temporal_patch_size, 2)):
            known = latents.inputs[:, : i + 1]
            blocks.append(
                measure_block(codec.model.tokenizer, block, known, [c.latents] * i, lengths, scorer.distortion)
            )
        true.append(torch.stack(blocks, 1).flatten())
    guess, truth = torch.cat(predicted).double().numpy(), torch.cat(true).double().numpy()
    return {
        "spearman": rank_correlation(guess, truth),
        "mean_relative_error": float(np.abs(guess / truth - 1).mean()),
    }


def conventional(name: str, videos: list[Frames], bits: list[float]) -> list[dict[str, float | None]]:
    """Quality of a video codec at these bits per clip of 16 frames, averaged over videos."""
    curves = []
    for video in videos:
        points = [encode(name, video, setting) for setting in CODECS[name][3]]
        points.sort()
        costs = np.log([p.cost for p in points])
        _, *qualities = zip(*points, strict=True)
        curves.append([np.interp(np.log(bits), costs, values, left=np.nan) for values in qualities])
    mean = np.mean(curves, 0)  # NaN where a video cannot be encoded in so few bits
    return [
        {"cost": b, "psnr": None if np.isnan(p) else float(p), "ssim": None if np.isnan(s) else float(s)}
        for b, p, s in zip(bits, *mean, strict=True)
    ]


def encode(name: str, video: Frames, setting: int) -> Point:
    """Encode and decode a video at a constant rate factor."""
    encoder, decoder, options, _ = CODECS[name]
    writer = av.CodecContext.create(encoder, "w")
    assert isinstance(writer, av.VideoCodecContext)
    writer.height, writer.width = video.shape[1:3]
    writer.pix_fmt, writer.framerate, writer.time_base = "yuv420p", Fraction(RATE), Fraction(1, RATE)
    writer.options = {**options, "crf": str(setting)}
    packets = []
    for index, pixels in enumerate(video):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, RATE)
        packets += writer.encode(frame)
    packets += writer.encode(None)
    reader = av.CodecContext.create(decoder, "r")
    assert isinstance(reader, av.VideoCodecContext)
    reader.extradata = writer.extradata
    frames = [frame for packet in [*packets, None] for frame in reader.decode(packet)]
    made = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in frames])).float().div(255)
    true = torch.from_numpy(video).float().div(255)
    similarity = frame_ssim(made.permute(3, 0, 1, 2)[None], true.permute(3, 0, 1, 2)[None]).mean()
    bits = sum(packet.size for packet in packets) * 8
    return Point(bits / len(video) * CLIP_FRAMES, float(psnr((made - true).square().mean())), float(similarity))


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot PSNR and SSIM over kilobits per second."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rate = np.array(report["bits"]) / CLIP_FRAMES * RATE / 1000
    lines = {"adaptok, adaptive": report["adaptive"], "adaptok, uniform": report["uniform"], **report.get("codecs", {})}
    for (name, points), style in zip(lines.items(), ("o-", "o--", "s:", "^:"), strict=False):
        for axis, key in zip(axes, ("psnr", "ssim"), strict=True):
            values = [np.nan if point[key] is None else point[key] for point in points]
            axis.plot(rate, values, style, markersize=4, label=name)
    for axis, label in zip(axes, ("PSNR (dB)", "SSIM"), strict=True):
        axis.set(xlabel=f"kbit/s at {RATE} frames per second", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

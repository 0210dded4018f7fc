"""Compare the tokens that a still clip and a moving clip need for the same predicted error.

python experiments/still_clip.py [VIDEO] [--start 0.0] [--target 0.0035] [--plot still.png] [--json]

The moving clip is 16 frames of a video (the bundled sample by default); the still clip repeats its first frame 16
times.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adaptok import AdapTok
from adaptok.evaluation.reconstruction import ReconstructionReport, compare
from adaptok.utils.files import replacing
from adaptok.video.sources import open_frames

FRAMES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="the bundled sample by default")
    parser.add_argument("--start", type=float, default=0.0, help="first second of the video")
    parser.add_argument("--target", type=float, default=0.0035, help="predicted distortion of each clip")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        as_file(files("adaptok") / "assets" / "walk.mp4") as clip,
        open_frames(options.video or clip, start=options.start) as source,
    ):
        moving = np.stack(list(islice(source.frames, FRAMES)))
    clips = {"moving": moving, "still": np.repeat(moving[:1], FRAMES, 0)}
    codec = AdapTok.from_pretrained(device="cpu")
    reports = {
        name: compare(codec, frames, [codec.encode(frames, target=options.target)])[0] for name, frames in clips.items()
    }
    if options.plot is not None:
        draw(options.plot, clips, reports, codec.config.tokenizer.latents)
    tokens = {name: report.tokens.tokens for name, report in reports.items()}
    document = {
        "target": options.target,
        "tokens": tokens,
        "fraction": tokens["still"] / tokens["moving"],
        "lengths": {name: report.tokens.lengths.tolist() for name, report in reports.items()},
        "psnr": {name: report.psnr for name, report in reports.items()},
    }
    print(json.dumps(document) if options.json else "\n".join(f"{name}: {value}" for name, value in document.items()))


def draw(
    path: Path, clips: dict[str, NDArray[np.uint8]], reports: dict[str, ReconstructionReport], latents: int
) -> None:
    """Plot the first, middle and last frame of each clip, and the tokens of its blocks."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(len(clips), 4, width_ratios=(1, 1, 1, 1.5))
    for row, (name, frames) in zip(axes, clips.items(), strict=True):
        for axis, index in zip(row, (0, FRAMES // 2, FRAMES - 1), strict=False):
            axis.imshow(frames[index])
            axis.set(xticks=[], yticks=[])
        report = reports[name]
        row[0].set_ylabel(f"{name}\n{report.tokens.tokens} tokens")
        row[3].bar(range(1, len(report.tokens.lengths) + 1), report.tokens.lengths)
        row[3].set(ylim=(0, latents), xticks=[])
    axes[0][3].set_title("tokens of each block", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    main()

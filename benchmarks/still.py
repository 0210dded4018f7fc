"""A still clip beside a busy one at the same predicted error: the tokens of each block, as a picture.

python benchmarks/still.py [VIDEO] [--start 0.0] [--target 0.0035] [--plot still.png] [--json]

The busy clip is 16 frames of a video (that in the box if none is given), the still one its first frame, 16 times.
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
from adaptok.evaluation.reconstruction import Report, compare
from adaptok.utils.files import replacing
from adaptok.video.sources import open_frames

FRAMES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="the clip in the box if not given")
    parser.add_argument("--start", type=float, default=0.0, help="second of the video")
    parser.add_argument("--target", type=float, default=0.0035, help="predicted error that each clip may have")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        as_file(files("adaptok") / "assets" / "walk.mp4") as clip,
        open_frames(options.video or clip, start=options.start) as source,
    ):
        busy = np.stack(list(islice(source.frames, FRAMES)))
    clips = {"busy": busy, "still": np.repeat(busy[:1], FRAMES, 0)}
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
        "share": tokens["still"] / tokens["busy"],
        "lengths": {name: report.tokens.lengths.tolist() for name, report in reports.items()},
        "psnr": {name: report.psnr for name, report in reports.items()},
    }
    print(json.dumps(document) if options.json else "\n".join(f"{name}: {value}" for name, value in document.items()))


def draw(path: Path, clips: dict[str, NDArray[np.uint8]], reports: dict[str, Report], latents: int) -> None:
    """The first, a middle and the last frame of each clip, and the tokens of its blocks."""
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

"""Show a frame of several videos and its reconstructions by several models, with blocks of equal length.

python experiments/bundled_model/versions.py FOLDER MODEL ... --out versions.png [--latents 192] [--frame 8]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adaptok import AdapTok
from adaptok.data.clips import fixed_clips
from adaptok.utils.files import replacing
from adaptok.video.pixels import clip_to_frames

SCALE = 2
"""Enlargement of the picture, without smoothing, so that pixels stay visible."""


@torch.inference_mode()
def reconstruct(model: str, clips: Tensor, latents: int) -> Tensor:
    """Reconstruct clips `[N, C, T, S, S]` in [0, 1] from a number of latents per block."""
    tokenizer = AdapTok.from_pretrained(model, device="cpu").model.tokenizer
    made = []
    for clip in clips.split(1):
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clip)).codes)
        made.append(tokenizer.decode(inputs, [[latents] * tokenizer.config.blocks]).clamp(0, 1))
    return torch.cat(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--latents", type=int, default=192)
    parser.add_argument("--frame", type=int, default=8)
    options = parser.parse_args()
    config = AdapTok.from_pretrained(options.models[0], device="cpu").config.tokenizer
    clips = fixed_clips(options.folder, frames=config.frames, size=config.size, per_video=1)
    rows = [clips, *(reconstruct(model, clips, options.latents) for model in options.models)]
    shown = [clip_to_frames(row[:, :, options.frame].transpose(0, 1)) for row in rows]  # uint8 [N, S, S, C] each
    picture = np.concatenate([np.concatenate(list(row), 1) for row in shown])
    image = Image.fromarray(picture)
    with replacing(options.out) as temporary:
        image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST).save(temporary, "PNG")


if __name__ == "__main__":
    main()

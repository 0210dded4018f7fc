"""Conversion between pixels and patches: plain patches, overlapping windows, convolutional stem and head.

All of these modules treat each block of frames independently, so the tokenizer stays block-causal.

Legend: `B` clips, `C` colours, `S` pixels of a side, `g` blocks of a call, `pt` frames of a block, `p` pixels of a
patch's side, `w` pixels of a window's side, `n` = S / p, `P` = n * n patches of a block, `D` width.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.tokenizer import ConvolutionConfig, TokenizerConfig
from adaptok.ops.overlap_add import overlap_add

_GROUPS = 8


def patchify(clips: Tensor, patch: int, temporal: int, window: int | None = None) -> Tensor:
    """Split clips `[B, C, g * pt, S, S]` into patches `[B, g, P, C * pt * w * w]`, with values in (c, pt, w, w) order.

    Args:
        window: w, side of the square that is read around the center of each patch; p if None. Frames are padded by
            reflection.
    """
    b, c, t, s, _ = clips.shape
    g, n, window = t // temporal, s // patch, window or patch
    if window == patch:
        x = clips.reshape(b, c, g, temporal, n, patch, n, patch)
        return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, g, n * n, -1)
    margin = (window - patch) // 2
    padded = F.pad(clips.flatten(1, 2), (margin,) * 4, mode="reflect").view(b, c, g, temporal, *(s + 2 * margin,) * 2)
    x = padded.unfold(4, window, patch).unfold(5, window, patch)  # b c g pt n n w w
    return x.permute(0, 2, 4, 5, 1, 3, 6, 7).reshape(b, g, n * n, -1)


def unpatchify(
    x: Tensor, channels: int, patch: int, temporal: int, window: int | None = None, taper: Tensor | None = None
) -> Tensor:
    """Join patches `[B, g, P, pt * w * w * C]`, with values in (pt, w, w, c) order, to clips `[B, C, g * pt, S, S]`.

    Args:
        window: w, side of the square that is written for each patch; p if None. Overlapping squares are added, and
            values outside the frame are dropped.
        taper: `[w, w]`, which overlapping squares are multiplied by.
    """
    b, g, p, _ = x.shape
    n, window = math.isqrt(p), window or patch
    if window == patch:
        x = x.reshape(b, g, n, n, temporal, patch, patch, channels)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(b, channels, g * temporal, n * patch, n * patch)
    frames = overlap_add(x.view(b * g, n, n, temporal, window, window, channels), patch, taper)
    return frames.reshape(b, g * temporal, *frames.shape[2:]).permute(0, 4, 1, 2, 3)


def taper(patch: int, window: int) -> Tensor:
    """Compute the window function `[w, w]` of overlapping windows.

    It is flat in the middle and follows a quarter period of a sine where windows overlap, so that the squares of its
    copies, shifted by p, sum to 1 (Princen and Bradley 1986, doi:10.1109/TASSP.1986.1164954).
    """
    overlap = window - patch
    # explicitly on the CPU: no checkpoint holds these values, so they must exist even in a model built on "meta"
    rise = torch.sin(torch.pi / 2 * (torch.arange(overlap, device="cpu") + 0.5) / overlap)
    side = torch.cat([rise, torch.ones(window - 2 * overlap, device="cpu"), rise.flip(0)])
    return side[:, None] * side


def _clear(conv: nn.Conv2d) -> None:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions, each after GroupNorm and SiLU. It is initialized to the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        _clear(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels, h, w]` to the same shape."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class ConvolutionalStem(nn.Module):
    """Convolutional encoder from pixels to patches, added to the patch embedding. Its output is initialized to 0."""

    def __init__(self, config: ConvolutionConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.temporal, self.cell = clips.temporal_patch_size, config.cell(clips.patch_size)
        widths = config.channels
        self.input = nn.Conv2d(clips.channels * self.temporal * self.cell**2, widths[0], 1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(config.depth))) for width in widths
        )
        self.down = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in pairwise(widths))
        self.output = nn.Conv2d(4 * widths[-1], clips.encoder.width, 1)
        _clear(self.output)

    def forward(self, clips: Tensor) -> Tensor:
        """`[B, C, g * pt, S, S]` to `[B, g, P, D]`."""
        b, _, t, s, _ = clips.shape
        g = t // self.temporal
        x = clips.unflatten(2, (g, self.temporal)).transpose(1, 2).reshape(b * g, -1, s, s)
        x = self.input(F.pixel_unshuffle(x, self.cell).contiguous(memory_format=torch.channels_last))
        for index, level in enumerate(self.levels):
            last = index == len(self.levels) - 1
            x = F.pixel_unshuffle(level(x), 2)
            x = self.output(x) if last else self.down[index](x)
        return x.flatten(2).transpose(1, 2).reshape(b, g, -1, x.shape[1])


class ConvolutionalHead(nn.Module):
    """Convolutional decoder from patches to pixels, the mirror image of the stem. Its output is initialized to 0."""

    def __init__(self, config: ConvolutionConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.temporal, self.cell = clips.temporal_patch_size, config.cell(clips.patch_size)
        self.channels = clips.channels
        widths = (clips.decoder.width, *config.channels[::-1])
        self.up = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(widths))
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(config.depth))) for width in widths[1:]
        )
        self.norm = nn.GroupNorm(_GROUPS, widths[-1])
        self.output = nn.Conv2d(widths[-1], clips.channels * self.temporal * self.cell**2, 3, padding=1)
        _clear(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, g, P, D]` to `[B, C, g * pt, S, S]`."""
        b, g, p, d = x.shape
        side = math.isqrt(p)
        x = x.flatten(0, 1).transpose(1, 2).reshape(b * g, d, side, side)
        x = x.contiguous(memory_format=torch.channels_last)
        for up, level in zip(self.up, self.levels, strict=True):
            x = level(F.pixel_shuffle(up(x), 2))
        x = F.pixel_shuffle(self.output(F.silu(self.norm(x))), self.cell)
        return x.view(b, g, self.channels, self.temporal, *x.shape[2:]).transpose(1, 2).flatten(2, 3)

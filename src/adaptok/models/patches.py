"""Patches of clips, windows that overlap, and the convolutions between pixels and patches.

Everything here works on one block of frames at a time: nothing crosses from one block into another.

Legend: `B` clips, `C` colours, `S` pixels of a side, `g` blocks of a call, `pt` frames of a block, `p` pixels of a
patch's side, `w` pixels of a window's side, `n` = S / p, `P` = n * n patches of a block, `D` width.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.configuration import ConvolutionConfig, TokenizerConfig

_GROUPS = 8


def patchify(clips: Tensor, patch: int, temporal: int, window: int | None = None) -> Tensor:
    """`[B, C, g * pt, S, S]` to `[B, g, P, C * pt * w * w]`, values in (c, pt, w, w) order.

    Args:
        window: w, pixels of the square around the centre of a patch that is read; the patch itself if None. Frames are
            mirrored at their edges.
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


def unpatchify(x: Tensor, channels: int, patch: int, temporal: int, window: int | None = None) -> Tensor:
    """`[B, g, P, pt * w * w * C]`, values in (pt, w, w, c) order, to `[B, C, g * pt, S, S]`.

    Args:
        window: w, pixels of the squares that are added where they overlap; what lies outside the frame is left out.
    """
    b, g, p, _ = x.shape
    n, window = math.isqrt(p), window or patch
    if window == patch:
        x = x.reshape(b, g, n, n, temporal, patch, patch, channels)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(b, channels, g * temporal, n * patch, n * patch)
    x = x.view(b, g, p, temporal, window, window, channels).permute(0, 1, 3, 6, 4, 5, 2)  # b g pt c w w P
    rows = x.reshape(b * g * temporal, channels * window * window, p)
    frames = F.fold(rows, n * patch, window, padding=(window - patch) // 2, stride=patch)
    return frames.view(b, g * temporal, channels, n * patch, n * patch).transpose(1, 2)


def taper(patch: int, window: int) -> Tensor:
    """`[w, w]`: a square window whose squares, shifted by the patch, add up to 1 everywhere.

    That is the condition of Princen and Bradley (1986) for a transform with overlap to give back what it read: flat in
    the middle, a quarter of a sine's period where two windows overlap.
    """
    overlap = window - patch
    # on the CPU even where a model is built without memory: no checkpoint holds this
    rise = torch.sin(torch.pi / 2 * (torch.arange(overlap, device="cpu") + 0.5) / overlap)
    side = torch.cat([rise, torch.ones(window - 2 * overlap, device="cpu"), rise.flip(0)])
    return side[:, None] * side


def _clear(conv: nn.Conv2d) -> None:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), both convolutions 3 x 3. It starts as the identity."""

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
    """What convolutions add to the patch embedding: squares of pixels, halved in resolution down to the patches."""

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
    """What convolutions add to the output layer: the mirror image of the stem, up from patches to pixels."""

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

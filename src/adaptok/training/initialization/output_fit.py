"""Least-squares fit of the output layer.

With overlapping windows, a pixel is the sum of the outputs of several patches. The weights that minimize the squared
error over some clips are therefore the solution of a linear regression of each pixel on the features of all patches
whose windows cover it; a small ridge penalty keeps them from overfitting.

Legend: `B` clips, `g` blocks of a clip, `P` patches of a block, `D` width, `pt` frames of a block, `p` pixels of a
patch's side, `w` pixels of a window's side, `C` channels, `N` patches of all clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptok.models.tokenizer import Tokenizer

RIDGE = 1e-3
"""Regularization, relative to the mean square of the features."""
_SIDE = 3
"""Patches along a side of the neighbourhood whose windows can cover a pixel: windows are at most two patches wide."""


@torch.no_grad()
def fit_output_layer(
    tokenizer: Tokenizer,
    batches: Iterable[tuple[Tensor, Sequence[Sequence[int]]]],
    ridge: float = RIDGE,
    wanted: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Fit the output layer in place by ridge regression, so that the mean squared error becomes nearly minimal.

    Args:
        tokenizer: with windows of any size; a convolutional head stays as it is.
        batches: clips `[B, C, T, S, S]` in [0, 1], and the lengths of their blocks.
        ridge: L2 penalty on the change of the weights, relative to the mean square of the features. It prevents
            overfitting to a few hundred clips.
        wanted: maps clips and their reconstructions to what should be reconstructed, by default the clips.
    """
    c = tokenizer.config
    features = (c.decoder.width + 1) * _SIDE**2
    gram = torch.zeros(features, features, dtype=torch.float64)
    moments = torch.zeros(features, c.temporal_patch_size * c.patch_size**2 * c.channels, dtype=torch.float64)
    for clips, lengths in batches:
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
        patches = tokenizer.decode_patches(inputs, lengths)
        x = _neighbourhoods(patches.float().cpu(), c.grid)
        made = tokenizer.draw_patches(patches)
        target = clips if wanted is None else wanted(clips, made)
        y = _pixels_by_patch((target - made).float().cpu(), tokenizer)
        gram += x.T @ x
        moments += x.T @ y
    change = _solve(gram, moments, tokenizer, ridge)
    if tokenizer.decoder_taper is not None:
        change = change / tokenizer.decoder_taper.cpu()[:, :, None]
    change = change.flatten(1).to(tokenizer.to_pixels.weight)
    tokenizer.to_pixels.weight.add_(change[:-1].T)
    tokenizer.to_pixels.bias.add_(change[-1])


def _neighbourhoods(patches: Tensor, grid: int) -> Tensor:
    """Convert patches `[B, g, P, D]` to rows `[N, 9 * (D + 1)]` of the features and a constant 1 of the 3 x 3 patches
    around each patch, from the top left. Features and constants outside the frame are 0."""
    x = F.pad(patches.unflatten(2, (grid, grid)), (0, 1), value=1.0)
    x = F.pad(x, (0, 0, 1, 1, 1, 1))
    offsets = range(_SIDE)
    around = [x[:, :, row : row + grid, column : column + grid] for row in offsets for column in offsets]
    return torch.cat(around, -1).flatten(0, 3)


def _pixels_by_patch(clips: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Convert clips `[B, C, T, S, S]` to rows `[N, pt * p * p * C]`."""
    c = tokenizer.config
    x = clips.unflatten(4, (c.grid, -1)).unflatten(3, (c.grid, -1)).unflatten(2, (-1, c.temporal_patch_size))
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(-1, c.temporal_patch_size * c.patch_size**2 * c.channels)


def _solve(gram: Tensor, moments: Tensor, tokenizer: Tokenizer, ridge: float) -> Tensor:
    """Solve the normal equations for the weights and bias `[D + 1, pt, w, w, C]` of windows without a taper."""
    c = tokenizer.config
    patch, window, width = c.patch_size, c.decoder_window or c.patch_size, c.decoder.width + 1
    margin = (window - patch) // 2
    by_patch = gram.view(_SIDE**2, width, _SIDE**2, width)
    targets = moments.view(_SIDE**2, width, c.temporal_patch_size, patch, patch, c.channels)
    weights = torch.zeros(width, c.temporal_patch_size, window, window, c.channels, dtype=torch.float64)
    # rows (or columns) of a patch by the neighbours, at offsets -1, 0 and 1, whose windows cover them
    groups: dict[tuple[int, ...], list[int]] = {}
    for pixel in range(patch):
        covering = tuple(o for o in (-1, 0, 1) if 0 <= pixel - o * patch + margin < window)
        groups.setdefault(covering, []).append(pixel)
    for vertical, rows in groups.items():
        for horizontal, columns in groups.items():
            covering = tuple((v + 1) * _SIDE + h + 1 for v in vertical for h in horizontal)
            matrix = by_patch[list(covering)][:, :, list(covering)].reshape(len(covering) * width, -1)
            matrix = matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
            at = torch.tensor(rows)[:, None], torch.tensor(columns)
            right = targets[list(covering)][:, :, :, at[0], at[1]]
            solved = torch.linalg.solve(matrix, right.reshape(len(matrix), -1)).view_as(right)
            sources = [(v, h) for v in vertical for h in horizontal]
            for (v, h), part in zip(sources, solved, strict=True):
                weights[:, :, at[0] - v * patch + margin, at[1] - h * patch + margin] = part
    return weights

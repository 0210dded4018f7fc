"""Videos of several panels side by side, which the page draws as separate pictures that stay in step.

Legend: `T` frames, `H`, `W` size of the model's canvas in pixels, `h`, `w` size of a panel in pixels.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.video.geometry import Geometry
from adaptok.video.pixels import clip_to_frames

PANEL_SIDE = 192
"""Length of the shorter side of a panel, in pixels. Panels are enlarged, so that H.264 keeps their colors sharp."""
_MAX_SIDE = 4 * PANEL_SIDE


def panel_size(geometry: Geometry) -> tuple[int, int]:
    """Height and width of a panel, both even, with the aspect ratio of the part of the frame that the model sees."""
    _, _, height, width = geometry.region
    scale = min(PANEL_SIDE / min(height, width), _MAX_SIDE / max(height, width))
    rows, columns = (max(2, round(side * scale / 2) * 2) for side in (height, width))
    return rows, columns


def draw_panel(clip: Tensor, geometry: Geometry) -> NDArray[np.uint8]:
    """Enlarge a clip `[3, T, H, W]` in [0, 1] to frames uint8 `[T, h, w, 3]`, without the bars of the fit "pad"."""
    row, column, rows, columns = geometry.window
    images = clip[:, :, row : row + rows, column : column + columns].float().transpose(0, 1)  # [T, 3, rows, columns]
    enlarged = F.interpolate(images, size=panel_size(geometry), mode="bicubic").clamp(0, 1)
    return clip_to_frames(enlarged.transpose(0, 1))

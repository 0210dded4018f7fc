"""Frames of arrays and tensors.

Legend: `B` clips, `T` frames, `H`, `W` frame size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.video.pixels import check_range

_LAYOUTS = "frames [T, H, W, 3] or [T, 3, H, W], or clips [B, 3, T, H, W]"


class ArrayFrames:
    """Sequence of the frames `[H, W, 3]`, uint8 or float32, of an array or a tensor.

    Args:
        video: Frames `[T, H, W, 3]` or `[T, 3, H, W]`, or consecutive clips `[B, 3, T, H, W]`; uint8, or floats in
            [0, 1]. The memory is shared where possible.

    Raises:
        ValueError: The shape fits no layout or several, or the type or the range of the values is wrong.
    """

    def __init__(self, video: NDArray[Any] | Tensor) -> None:
        values = _to_numpy(video)
        _check_values(values)
        self._frames = _channels_last(values)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> NDArray[Any]:
        frame: NDArray[Any] = self._frames[index]
        return frame if frame.dtype == np.uint8 else frame.astype(np.float32, copy=False)


def frame_of(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    """Return one frame `[H, W, 3]` or `[3, H, W]` as `[H, W, 3]`, uint8 or float32. Errors as for `ArrayFrames`."""
    return ArrayFrames(values[None])[0]


def _to_numpy(video: NDArray[Any] | Tensor) -> NDArray[Any]:
    if not isinstance(video, Tensor):
        return video
    array = video.detach().cpu()
    return array.float().numpy() if array.is_floating_point() else array.numpy()


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """Return `[T, H, W, 3]`."""
    shape = values.shape
    if min(shape, default=0) > 0:
        if len(shape) == 5 and shape[1] == 3:
            frames = values.transpose(0, 2, 3, 4, 1)  # [B, T, H, W, 3]
            return frames.reshape(-1, *frames.shape[2:])
        if len(shape) == 4 and (shape[1] == 3) != (shape[3] == 3):
            return values if shape[3] == 3 else values.transpose(0, 2, 3, 1)
    raise ValueError(f"an array of shape {tuple(shape)}, expected RGB {_LAYOUTS}{_advice(shape)}")


def _advice(shape: tuple[int, ...]) -> str:
    """Say how to correct a shape, as far as it can be guessed."""
    if min(shape, default=0) == 0:
        return "; it is empty"
    if len(shape) == 3:
        return "; a single frame needs the time axis, array[None], and gray frames need three channels"
    if len(shape) == 4:
        if shape[1] == shape[3] == 3:
            return "; both layouts of frames fit, so give it as clips [1, 3, T, H, W]"
        if 4 in (shape[1], shape[3]):
            return "; leave out the fourth channel, such as array[..., :3]"
        if 1 in (shape[1], shape[3]):
            return "; repeat gray values three times along the axis of channels"
        if shape[0] == 3:
            return "; give [3, T, H, W] as clips, array[None]"
    if len(shape) == 5 and 3 in (shape[2], shape[4]):
        return "; move the channels to the second axis, or join the clips to frames"
    return ""


def _check_values(values: NDArray[Any]) -> None:
    if values.dtype == np.uint8:
        return
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"pixels of type {values.dtype}, expected uint8 from 0 to 255, or floats in [0, 1]; convert 8-bit values"
            " with astype('uint8')"
        )
    if values.size:
        check_range(torch.tensor([float(values.min()), float(values.max())]))

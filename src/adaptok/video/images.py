"""Frames of PIL images, and of image files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from adaptok.video.container import VideoError
from adaptok.video.folders import IMAGE_SUFFIXES, is_frame_folder, list_frames
from adaptok.video.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Formats of PIL that belong to `IMAGE_SUFFIXES`. Others, some of which run programs, are not tried."""
_DEEP_MODES = ("I", "F")  # and I;16 …: modes of PIL with more than 8 bits, which it would clip


def is_image_list(video: Any) -> TypeGuard[Sequence[Image]]:
    """Return whether a value is a list or tuple of PIL images."""
    from PIL.Image import Image

    return isinstance(video, list | tuple) and len(video) > 0 and all(isinstance(image, Image) for image in video)


class ImageFrames:
    """Sequence of the frames uint8 `[H, W, 3]` of PIL images. Transparency is dropped.

    Args:
        images: Images of one size, with 8 bits per channel.

    Raises:
        ValueError: An image has another size than the first one, or more than 8 bits.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images
        for index, image in enumerate(images):
            _check_size(f"image {index}", image.size, images[0].size)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return _to_rgb(self._images[index], f"image {index}")


class FolderFrames:
    """Sequence of the frames uint8 `[H, W, 3]` of the image files in a folder, in natural order, each read when it is
    needed. Images are rotated as their EXIF data say, and transparency is dropped.

    Args:
        folder: Folder with images directly in it, and no videos.
        limits: Largest images that are read.

    Raises:
        VideoError: The folder holds videos, or no images.
        ValueError: Its sub-folders hold images too.
    """

    def __init__(self, folder: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        if not is_frame_folder(folder):
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(
                f"{folder}: a folder that is not the frames of one video, expected images ({kinds}) directly in it and"
                " no videos; give one of its files, or encode all with 'adaptok encode' or 'adaptok tokenize'"
            )
        self._paths, self._limits = list_frames(folder), limits
        self._size: tuple[int, int] | None = None  # of the first frame that was read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps, UnidentifiedImageError

        path = self._paths[index]
        try:
            with Image.open(path, formats=_FORMATS) as image:
                self._limits.check_size(path, *image.size)
                upright = ImageOps.exif_transpose(image)
                frame = _to_rgb(upright, str(path))
        except UnidentifiedImageError:
            raise VideoError(f"{path}: not an image that can be read, expected one of {', '.join(_FORMATS)}") from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(f"{path}: cannot be read ({error}); replace or remove it") from None
        self._size = self._size or upright.size
        _check_size(str(path), upright.size, self._size)
        return frame


def _check_size(name: str, size: tuple[int, int], first: tuple[int, int]) -> None:
    if size != first:
        raise VideoError(
            f"{name}: {size[0]}x{size[1]} pixels, expected {first[0]}x{first[1]} as in the first frame; bring all"
            " frames to one size"
        )


def _to_rgb(image: Image, name: str) -> NDArray[np.uint8]:
    if image.mode.startswith(_DEEP_MODES):
        raise VideoError(f"{name}: an image of mode {image.mode}, expected 8 bits per channel; convert it to RGB")
    return np.asarray(image.convert("RGB"))

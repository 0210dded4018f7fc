"""Frames of decoders with the interface of `torchcodec.decoders.VideoDecoder`, which need not be installed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol, TypeGuard

from numpy.typing import NDArray

from adaptok.video.arrays import frame_of
from adaptok.video.container import MAX_FPS


class FrameDecoder(Protocol):
    """A decoder of one video, such as torchcodec's `VideoDecoder`.

    Attributes:
        metadata: Has an attribute `average_fps`, the frames per second.
    """

    metadata: Any

    def __len__(self) -> int:
        """Return the number of frames."""

    def __getitem__(self, index: int) -> Any:
        """Return a frame `[3, H, W]` or `[H, W, 3]`, uint8 or float in [0, 1]."""


def is_decoder(video: Any) -> TypeGuard[FrameDecoder]:
    """Return whether a value has the interface of a `FrameDecoder`."""
    return hasattr(video, "metadata") and hasattr(video, "__len__") and hasattr(video, "__getitem__")


class DecoderFrames:
    """Frames of a decoder with their times, in seconds from the first frame.

    Times are those of `get_frame_at`, if the decoder has that method of torchcodec; otherwise frames are evenly spaced.

    Args:
        decoder: The decoder.

    Attributes:
        fps: Average number of frames per second.

    Raises:
        ValueError: The decoder has no frames, or does not state their rate.
    """

    def __init__(self, decoder: FrameDecoder) -> None:
        rate = getattr(decoder.metadata, "average_fps", None)
        if rate is None or not 0 < rate <= MAX_FPS:
            raise ValueError(
                f"a decoder whose metadata.average_fps is {rate}, expected the frames per second, at most {MAX_FPS}"
            )
        if not len(decoder):
            raise ValueError("a decoder without frames, expected at least one")
        self._decoder = decoder
        self.fps = Fraction(rate).limit_denominator(100_000)
        self._has_times = hasattr(decoder, "get_frame_at")
        self._origin = Fraction(0)
        self._origin = self._get(0)[0]

    def __len__(self) -> int:
        return len(self._decoder)

    @property
    def last_duration(self) -> Fraction:
        """Duration of the last frame, in seconds."""
        if not self._has_times:
            return 1 / self.fps
        last = self._decoder.get_frame_at(len(self._decoder) - 1)  # type: ignore[attr-defined]
        return Fraction(last.duration_seconds)

    @property
    def first(self) -> NDArray[Any]:
        """The first frame, `[H, W, 3]`."""
        return frame_of(self._get(0)[1])

    def timed(self, start: Fraction) -> Iterator[tuple[Fraction, NDArray[Any]]]:
        """Yield frames `[H, W, 3]` with their times, from the one that is shown at `start` on."""
        count = len(self._decoder)
        first = 0
        if start > 0:
            first = max(0, bisect_right(range(count), start, key=lambda index: self._get(index)[0]) - 1)
        for index in range(first, count):
            time, values = self._get(index)
            yield time, frame_of(values)

    def _get(self, index: int) -> tuple[Fraction, Any]:
        if not self._has_times:
            return index / self.fps, self._decoder[index]
        frame = self._decoder.get_frame_at(index)  # type: ignore[attr-defined]
        return Fraction(frame.pts_seconds) - self._origin, frame.data

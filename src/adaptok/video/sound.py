"""Sound of a video file, copied beside new frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from adaptok.video.container import VideoError, check_video_file, open_container

_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
"""Codecs whose packets every kind of video file that is written here may hold; others are encoded to AAC."""


class Sound:
    """The first audio stream of a file, from a time on.

    Packets of common codecs are copied as they are, and start within the length of a packet of that time.

    Args:
        path: File with sound.
        start: Time in seconds from the first frame of its video.

    Raises:
        VideoError: The file cannot be read, or has no sound.
    """

    def __init__(self, path: str | Path, start: float = 0.0) -> None:
        check_video_file(path)
        self.path = Path(path)
        with ExitStack() as stack:
            self._container = stack.enter_context(open_container(self.path))
            if not self._container.streams.audio:
                raise VideoError(f"{path}: no sound, expected a file with an audio stream")
            self._close = stack.pop_all()
        self._source = self._container.streams.audio[0]
        videos = self._container.streams.video
        origin = Fraction(0)
        if videos and videos[0].start_time is not None and videos[0].time_base is not None:
            origin = videos[0].start_time * videos[0].time_base
        self._start = origin + Fraction(start)
        self._packets: Iterator[tuple[Fraction, Packet]] = iter(())
        self._next: tuple[Fraction, Packet] | None = None

    def attach(self, output: OutputContainer) -> None:
        """Add the stream to a file that will be written, before its first packet."""
        codec = self._source.codec_context
        if codec.name in _COPIED:
            self._packets = self._copy(output.add_stream_from_template(self._source))
        else:
            layout = "mono" if codec.layout.nb_channels == 1 else "stereo"
            stream = output.add_stream("aac", rate=codec.sample_rate, layout=layout)
            self._packets = self._encode(stream)
        self._next = next(self._packets, None)

    def write(self, output: OutputContainer, until: Fraction) -> None:
        """Write the packets that begin before a time, in seconds of the written video."""
        while self._next is not None and self._next[0] < until:
            output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the file."""
        self._close.close()

    def _copy(self, stream: AudioStream) -> Iterator[tuple[Fraction, Packet]]:
        for packet in self._container.demux(self._source):
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            shift = round(self._start / packet.time_base)
            if packet.pts < shift:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            yield packet.pts * packet.time_base, packet

    def _encode(self, stream: AudioStream) -> Iterator[tuple[Fraction, Packet]]:
        for frame in self._shifted():
            for packet in stream.encode(frame):
                yield (packet.pts or 0) * packet.time_base, packet
        for packet in stream.encode(None):
            yield (packet.pts or 0) * packet.time_base, packet

    def _shifted(self) -> Iterator[AudioFrame]:
        for frame in self._container.decode(self._source):
            if frame.pts is None or frame.time_base is None:
                continue
            time = frame.pts * frame.time_base - self._start
            if time >= 0:
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = round(time * frame.sample_rate)
                yield frame


def open_sound(path: str | Path, start: float = 0.0) -> Sound | None:
    """Open the sound of a file; None if it cannot be read or has none."""
    try:
        return Sound(path, start)
    except (VideoError, av.FFmpegError):
        return None

"""The sound of videos: where a token file says that it is, and copies of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptok.codec.token_file import VideoTokens
    from adaptok.video.sound import Sound


def remember_sound(tokens: VideoTokens, video: Path, out: Path, start: float) -> VideoTokens:
    """Return tokens that say where the sound of their video is, if it has any.

    Args:
        tokens: Tokens of the video.
        video: Path of the video.
        out: Token file that will be written; the path is stored relative to its folder.
        start: Time in the video at which the tokens begin, in seconds.
    """
    from adaptok.codec.token_info import AudioSource
    from adaptok.video.limits import NO_LIMITS
    from adaptok.video.reading import probe

    if not probe(video, NO_LIMITS).audio:
        return tokens
    path = video.resolve()
    try:
        name = os.path.relpath(path, out.resolve().parent)
    except ValueError:  # another drive of Windows
        name = str(path)
    source = AudioSource(path=Path(name).as_posix(), start=start)
    return replace(tokens, info=tokens.info.model_copy(update={"audio": source}))


def find_sound(tokens: VideoTokens, file: Path) -> tuple[Sound | None, str | None]:
    """Open the sound that a token file remembers; with a note if it is gone."""
    from adaptok.video.sound import open_sound

    source = tokens.info.audio
    if source is None:
        return None, None
    path = file.resolve().parent / source.path
    sound = open_sound(path, source.start) if path.is_file() else None
    note = f"note: the sound of the video is dropped, as {os.path.normpath(path)} is gone or has no sound"
    return sound, None if sound is not None else note

"""`adaptok info X`: what is in a video, a token file or a model folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from adaptok.checkpoints.hub import resolve
from adaptok.checkpoints.model_folder import holds_generator, read_folder, read_generator
from adaptok.codec.codec import AdapTok
from adaptok.codec.token_file import TokenFileError, VideoTokens
from adaptok.video.container import VideoError
from adaptok.video.reading import probe


@dataclass(kw_only=True)
class Info:
    """Tell what a video, token file or model folder holds."""

    what: Positional[str | None] = None
    """Video, token file, model folder or hub id; the model in the box if not given."""
    json: bool = False
    """Print one JSON object on stdout."""
    quiet: bool = False
    """No output but errors."""

    def run(self) -> None:
        document = describe(self.what)
        if self.json:
            print(json.dumps(document, default=str))
        elif not self.quiet:
            for name, value in document.items():
                print(f"{name}: {_short(value)}")


def describe(what: str | None) -> dict[str, Any]:
    """What is in it, as a JSON object.

    Raises:
        ValueError: it is neither.
    """
    if what is None:
        codec = AdapTok.from_pretrained(None, device="cpu")
        return _model_document(
            "adaptok", codec.config.model_dump(mode="json"), codec.model.parameter_counts(), codec.weights_hash
        )
    path = Path(what)
    if path.is_file():
        try:
            return {"kind": "tokens", **tokens_document(VideoTokens.load(path))}
        except TokenFileError as not_tokens:
            try:
                return {"kind": "video", **asdict(probe(path))}
            except VideoError as not_video:
                raise (not_tokens if _looks_like_tokens(path) else not_video) from None
    folder = resolve(what)
    if holds_generator(folder):
        generator = read_generator(folder)
        counts, config = generator.parameter_counts(), generator.config.model_dump(mode="json")
        return {"kind": "generator", "parameters": counts, **config}
    checkpoint = read_folder(folder)
    config = checkpoint.config.model_dump(mode="json")
    return _model_document(checkpoint.layout, config, checkpoint.build().parameter_counts(), checkpoint.hash())


def _looks_like_tokens(path: Path) -> bool:
    """Whether the file has the beginning of a safetensors file: a short header in JSON."""
    with path.open("rb") as file:
        return file.read(9)[4:] == b"\0\0\0\0{"


def _model_document(layout: str, config: dict[str, Any], parameters: dict[str, int], weights: str) -> dict[str, Any]:
    return {"kind": "model", "layout": layout, "weights_hash": weights, "parameters": parameters, **config}


def tokens_document(tokens: VideoTokens) -> dict[str, Any]:
    """Tokens as a JSON object."""
    info = tokens.info
    return {
        **info.model_dump(mode="json"),
        "padding": info.padding,
        "crop": info.crop,
        "seconds": round(info.seconds, 6),
        "tokens": tokens.tokens,
        "tokens_per_second": tokens.tokens_per_second,
        "bits": tokens.bits,
        "clips": info.clips,
        "lengths": tokens.lengths.tolist(),
        "scores": tokens.scores is not None,
    }


def describe_tokens(tokens: VideoTokens) -> str:
    """One line for people to read."""
    info = tokens.info
    return (
        f"{tokens.tokens} tokens ({tokens.tokens / info.blocks * info.clip_blocks:.0f} a clip,"
        f" {tokens.tokens_per_second:.0f} a second) for {info.frames} frames in {info.blocks} blocks"
        f" of {tokens.lengths.min()} to {tokens.lengths.max()} tokens"
    )


def _short(value: Any, limit: int = 400) -> str:
    text = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
    return text if len(text) <= limit else text[:limit] + " …"

"""Descriptions of files and folders, as JSON objects and as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptok.cli.output import refuse_streams

if TYPE_CHECKING:
    from adaptok.checkpoints.folders import FolderKind
    from adaptok.codec.token_file import VideoTokens


def describe(name: str | None) -> dict[str, Any]:
    """Describe a video, token file, model folder, training run, token dataset or report.

    Args:
        name: path, or id of a model on the hub; the bundled model if None.

    Raises:
        ValueError: it is none of these.
        FileNotFoundError: it does not exist.
    """
    if name is None:
        from adaptok.codec.codec import AdapTok

        codec = AdapTok.from_pretrained(None, device="cpu")
        config = codec.config.model_dump(mode="json")
        return _model_document("adaptok", config, codec.model.parameter_counts(), codec.weights_hash)
    path = Path(name)
    refuse_streams(path)
    if path.is_file():
        return _describe_file(path)
    if path.is_dir():
        from adaptok.checkpoints.folders import CONFIG_FILE, folder_kind

        describe_kind = _FOLDERS.get(folder_kind(path))
        if describe_kind is not None:
            return describe_kind(path)
        if not (path / CONFIG_FILE).exists():
            raise ValueError(
                f"{path}: expected a model folder, a training run, a token dataset or a report; for a folder of"
                " videos, see 'adaptok data index'"
            )
    return _describe_model(name)


def _describe_file(path: Path) -> dict[str, Any]:
    from adaptok.codec.token_file import TokenFileError, VideoTokens
    from adaptok.video.container import VideoError
    from adaptok.video.reading import probe

    if path.suffix == ".parquet":
        return _describe_shard(path)
    try:
        return {"kind": "tokens", **tokens_document(VideoTokens.load(path))}
    except TokenFileError as not_tokens:
        try:
            return {"kind": "video", **asdict(probe(path))}
        except VideoError as not_video:
            raise (not_tokens if _looks_like_safetensors(path) else not_video) from None


def _looks_like_safetensors(path: Path) -> bool:
    """Whether the file begins like a safetensors file: the length of a short header, and JSON."""
    with path.open("rb") as file:
        return file.read(9)[4:] == b"\0\0\0\0{"


def _describe_model(name: str) -> dict[str, Any]:
    from adaptok.checkpoints.hub import resolve
    from adaptok.checkpoints.model_folder import holds_generator, read_folder, read_generator

    folder = resolve(name)
    if holds_generator(folder):
        generator = read_generator(folder)
        counts, config = generator.parameter_counts(), generator.config.model_dump(mode="json")
        return {"kind": "generator", "parameters": counts, **config}
    checkpoint = read_folder(folder)
    config = checkpoint.config.model_dump(mode="json")
    return _model_document(checkpoint.layout, config, checkpoint.build().parameter_counts(), checkpoint.hash())


def _model_document(layout: str, config: dict[str, Any], parameters: dict[str, int], weights: str) -> dict[str, Any]:
    return {"kind": "model", "layout": layout, "weights_hash": weights, "parameters": parameters, **config}


def _describe_run(folder: Path) -> dict[str, Any]:
    from adaptok.config.base import read_yaml

    config = read_yaml(folder / "config.yaml")
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("*") if not path.name.startswith("."))
    return {
        "kind": "training run",
        "stage": config.get("stage"),
        "step": _last_step(folder / "metrics.jsonl"),
        "checkpoints": checkpoints,
        "model": str(folder / "model") if (folder / "model" / "config.json").exists() else None,
        "config": config,
    }


def _last_step(metrics: Path) -> Any:
    """Return the step of the last line of a run's metrics; 0 without lines."""
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    try:
        last = json.loads(lines[-1]) if lines else {"step": 0}
    except (ValueError, RecursionError):
        last = None
    if not isinstance(last, dict):
        raise ValueError(f"{metrics}: its last line is damaged, expected a JSON object; remove that line")
    return last.get("step")


def _describe_token_dataset(folder: Path) -> dict[str, Any]:
    from adaptok.data.token_datasets import read_info

    shards = sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))
    info = read_info(shards[0]).model_dump(mode="json")
    clips = sum(_rows(shard) for shard in shards)
    return {"kind": "token dataset", "shards": len(shards), "clips": clips, **info}


def _describe_shard(path: Path) -> dict[str, Any]:
    from adaptok.data.token_datasets import read_info
    from adaptok.utils.extras import require

    require("pyarrow", extra="train", purpose="a Parquet file")
    try:
        info = read_info(path).model_dump(mode="json")
        return {"kind": "shard of a token dataset", "clips": _rows(path), **info}
    except ValueError as error:
        from adaptok.data.manifests import read_manifest

        try:
            entries = read_manifest(path)
        except ValueError:
            raise error from None
        broken = sum(entry.error is not None for entry in entries)
        return {"kind": "index of a collection", "files": len(entries), "unreadable": broken}


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except OSError as error:  # pyarrow also raises it for damaged files
        raise ValueError(f"{path}: not a Parquet file, or damaged ({' '.join(str(error).split())})") from None


def _describe_report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    if not path.is_file():
        raise ValueError(f"{folder}: an unfinished evaluation; run 'adaptok evaluate' again to resume it")
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a report of 'adaptok evaluate'")
    names = ("protocol", "model", "data", "metrics", "results")
    return {
        "kind": "report",
        "evaluation": document.get("kind"),
        **{name: document[name] for name in names if name in document},
    }


_FOLDERS: dict[FolderKind | None, Callable[[Path], dict[str, Any]]] = {
    "run": _describe_run,
    "token dataset": _describe_token_dataset,
    "report": _describe_report,
}
"""Description of each kind of folder that is no model."""


def tokens_document(tokens: VideoTokens) -> dict[str, Any]:
    """Describe tokens as a JSON object."""
    info = tokens.info
    return {
        **info.model_dump(mode="json"),
        "padding": info.padding,
        "crop": info.crop,
        "dropped_area": info.geometry.loss,
        "seconds": round(info.seconds, 6),
        "tokens": tokens.tokens,
        "tokens_per_second": tokens.tokens_per_second,
        "bits": tokens.bits,
        "clips": info.clips,
        "tiles": info.tiles,
        "lengths": tokens.lengths.tolist(),
        "scores": tokens.scores is not None,
    }


def describe_loss(tokens: VideoTokens) -> str | None:
    """Say in one line what part of the frames is lost; None if the tokens cover all of it."""
    info, (top, left, height, width) = tokens.info, tokens.info.crop
    if not info.geometry.loss:
        return None
    return (
        f"note: --fit {info.fit} keeps {width}x{height} of {info.width}x{info.height} pixels, from ({left}, {top}) on;"
        f" the other {info.geometry.loss:.0%} of the frame are dropped and come back black; --fit tile keeps all"
    )


def describe_tokens(tokens: VideoTokens) -> str:
    """Describe tokens in one line."""
    info = tokens.info
    return (
        f"{tokens.tokens} tokens ({tokens.tokens / info.blocks * info.clip_blocks:.0f} per clip,"
        f" {tokens.tokens_per_second:.0f} per second) for {info.frames} frames in {info.blocks} blocks"
        f" of {tokens.lengths.min()} to {tokens.lengths.max()} tokens"
        f"{'' if info.tiles == 1 else f' ({info.tiles} tiles)'}"
    )


def shorten(value: Any, limit: int = 400) -> str:
    """A value as text, cut off after `limit` characters."""
    text = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
    return text if len(text) <= limit else text[:limit] + " …"

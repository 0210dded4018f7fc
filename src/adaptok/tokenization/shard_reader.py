"""Checks of the shards in the folder of a plan, before others are written beside them."""

from __future__ import annotations

from pathlib import Path

from adaptok.data.token_shards import read_checksums, read_columns, read_info, schema
from adaptok.tokenization.plan import TokenPlan, shard_path


def check_shards(plan: TokenPlan, out: Path) -> None:
    """Check that the shards in a folder are whole, and those of the plan.

    Raises:
        ValueError: A shard is damaged, or was written for another plan.
    """
    planned = {shard_path(out, number): number for number in range(len(plan.shards))}
    for path in sorted(out.glob("[!.]*.parquet")):
        if path not in planned:
            raise ValueError(f"{path}: not in the plan of the dataset; move it to another folder")
        if reason := _mismatch(plan, planned[path], path):
            raise ValueError(
                f"{path}: written for another plan ({reason}); remove it, and repeat the command to write it again"
            )


def _mismatch(plan: TokenPlan, number: int, path: Path) -> str | None:
    """Describe the first difference between a shard and its plan."""
    if difference := read_info(path).first_difference(plan.info, ("class_names",)):
        return f"{difference.name} {difference.value!r}, not {difference.other!r}"
    table = read_columns(path, plan.info, list(schema(plan.info)))
    labels = {video.source: video.label for video in plan.videos_of(number)}
    pairs = table.select(["source", "label"]).group_by(["source", "label"]).aggregate([]).to_pylist()
    for pair in pairs:
        if pair["source"] not in labels:
            return f"it has clips of {pair['source']}"
        if pair["label"] != labels[pair["source"]]:
            return f"{pair['source']} has the label {pair['label']!r}"
    checksums = read_checksums(path)
    if checksums is not None and checksums.plan is not None and checksums.plan != plan.checksum(number):
        return "its videos have other sizes"
    return None

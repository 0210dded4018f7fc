"""Texts of `adaptok train`: the plan of a run, and the summary at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

VALIDATION = "validation_"


def plan_text(document: Mapping[str, Any], folder: Path) -> str:
    """The description of a run by `adaptok.training.estimate.describe`, and the step that it resumes after, as text."""
    config = document["configuration"]
    parts = [f"{name} {_millions(count)}" for name, count in document["parameters"].items() if count]
    rows = [
        ("run", f"{config['stage']} in {folder}, {_beginning(document)}"),
        ("parameters", ", ".join(parts)),
        ("data", _data(document)),
        ("length", _length(document)),
        ("batch", _batch(document)),
        ("work", f"{document['gflop_per_step']:,.0f} GFLOP per step, in {config['precision']}"),
        ("memory", f"about {document['memory_gb']:.1f} GB per process"),
    ]
    lines = [f"{name:<12}{text}" for name, text in rows]
    if document["missing"]:
        return "\n".join([*lines, "Not ready to start:", *(f"- {text}" for text in document["missing"])])
    return "\n".join([*lines, "Ready to start."])


def _beginning(document: Mapping[str, Any]) -> str:
    if document["resumes_after"]:
        return f"resuming after step {document['resumes_after']:,}"
    return f"starting from {document['configuration']['initial'] or 'random weights'}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _data(document: Mapping[str, Any]) -> str:
    if "clips" in document:
        known, what = document["clips"], f"clips of {len(document['labels'])} classes"
    else:
        known, what = document["files"], f"readable files, {len(document['broken'])} unreadable"
    if known is None:
        return "none given" if document["missing"] else "drawn clips"
    held = document["validation_clips"]
    return f"{known:,} {what}; {f'{held:,} validation clips' if held else 'no validation'}"


def _length(document: Mapping[str, Any]) -> str:
    if document["steps"] is None:
        return f"{document['configuration']['epochs']:g} epochs"
    return f"{document['steps']:,} steps, {document['warmup_steps']:,} of them warm-up"


def _batch(document: Mapping[str, Any]) -> str:
    processes, accumulation = document["processes"], document["gradient_accumulation_steps"]
    return (
        f"{document['clips_per_step']} clips per step = {processes} process{'es' if processes > 1 else ''} x"
        f" {document['micro_batch_size']} clips at once x {accumulation} accumulation step{'s' * (accumulation > 1)}"
    )


def summary_text(stage: str, folder: Path, steps: int, metrics: Mapping[str, float]) -> str:
    """Lines at the end of a run: its length, the last results, where the model is, and the next step.

    Args:
        stage: tokenizer, scorer or generator.
        folder: folder of the run.
        steps: number of steps of the run.
        metrics: last value of each metric.
    """
    model = folder / "model"
    shown = {name: value for name, value in metrics.items() if name == "loss" or name.startswith(VALIDATION)}
    results = [f"{name.removeprefix(VALIDATION)} {value:.4g}" for name, value in shown.items()]
    next_step = {
        "tokenizer": f"adaptok train scorer --initial {model} --data.train ... (fits the scorer to this tokenizer, for"
        " adaptive lengths)",
        "scorer": f"adaptok reconstruct VIDEO --model {model}",
        "generator": f"adaptok generate --generator {model} (or adaptok predict VIDEO, after training on first frames)",
    }[stage]
    lines = [f"finished: {steps} steps; {', '.join(results)}", f"model: {model}", f"next: {next_step}"]
    return "\n".join(lines)

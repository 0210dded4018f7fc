"""Older spellings of the command line keep their meaning."""

from __future__ import annotations

import json

import pytest

from adaptok.cli.compatibility import modernize
from adaptok.cli.main import main
from adaptok.cli.parser import parse


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tokenize clips --out tokens", "tokenize clips --output tokens"),
        ("tokenize clips --out=tokens", "tokenize clips --output=tokens"),
        ("evaluate clips --budgets 12 24", "evaluate reconstruction clips --budget 12 24"),
        ("evaluate --reference a --prediction b", "evaluate files --reference a --prediction b"),
        ("evaluate clips --samples s", "evaluate generation clips --samples s"),
        ("evaluate clips --samples s --generation class", "evaluate generation clips --samples s"),
        ("evaluate clips --samples s --generation frame", "evaluate prediction clips --samples s"),
        ("generate --tokens 5 --least 1 --most 3", "generate --budget 5 --min-tokens 1 --max-tokens 3"),
        ("data shapes out", "data synthesize out"),
        ("train --config small scorer", "train scorer --config small"),
        ("benchmark train --batch 4 --warm 1", "benchmark train --batch-size 4 --warmup-steps 1"),
        ("encode in.mp4 --dtype bf16", "encode in.mp4 --dtype bfloat16"),
        ("encode in.mp4 --dtype=half --quiet", "encode in.mp4 --dtype=float16 --quiet"),
        ("benchmark encode --dtype fp32 bf16", "benchmark encode --dtype float32 bfloat16"),
        ("reconstruct --budget 192 in.mp4 out.mp4", "reconstruct in.mp4 out.mp4 --budget 192"),
        ("reconstruct in.mp4 --budget 12 20 --budget=30 out.mp4", "reconstruct in.mp4 out.mp4 --budget 12 20 30"),
    ],
)
def test_old_spelling(old, new):
    assert modernize(old.split()) == new.split()
    assert parse(old.split()) == parse(new.split())
    assert modernize(new.split()) == new.split()


def test_keys_of_older_configurations_are_flags(capsys):
    main(["train", "tokenizer", "--steps", "7", "--optimizer.learning-rate", "1e-3", "--batch", "2", "--print-config"])
    printed = capsys.readouterr().out
    assert "max_steps: 7" in printed
    assert "lr: 0.001" in printed


def test_present_meaning_comes_first(capsys):
    """A flag that is valid today is never rewritten."""
    command = parse(["benchmark", "generate", "--tokens", "8"])
    assert command.tokens == (8,)
    assert json.dumps(command.clips) == "[1, 8]"

"""Two processes with half of the batch each are one process with all of it, whether they share the weights or not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.distributed import launch


@pytest.mark.parametrize(
    ("more", "steps", "others"),
    [([], 20, ("two", "sharded")), (["adaptive"], 6, ("sharded",))],
    ids=["fixed weight", "adaptive weight"],
)
def test_two_processes_equal_one(tmp_path, more, steps, others):
    runs = {"one": (1, 4, more), "two": (2, 2, more), "sharded": (2, 2, [*more, "sharding"])}
    last = {}
    for name in ("one", *others):
        processes, batch, how = runs[name]
        (tmp_path / name).mkdir()
        log = tmp_path / f"{name}.txt"
        launch("train_tokenizer", tmp_path / name, batch, *how, processes=processes, log=log)
        last[name] = tmp_path / name / "run/checkpoints" / f"step-{steps:08d}"
    for file in ("model", "average"):
        one = load_file(last["one"] / f"{file}.safetensors")
        for name in others:
            found = load_file(last[name] / f"{file}.safetensors")
            assert one.keys() == found.keys()
            for key, tensor in one.items():
                torch.testing.assert_close(found[key], tensor, atol=1e-5, rtol=0, msg=f"{name}: {key}")

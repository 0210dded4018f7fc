"""Devices and types by name."""

from __future__ import annotations

import pytest
import torch

from adaptok.utils.devices import DTYPES, pick_device, pick_dtype


def test_names_are_resolved():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    assert [pick_dtype(name) for name in DTYPES] == [torch.float32, torch.bfloat16, torch.float16]
    assert pick_dtype(torch.float64) == torch.float64
    short = ["fp32", "float", "bf16", "fp16", "half", "torch.bfloat16"]
    bits = [torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float16, torch.bfloat16]
    assert [pick_dtype(name) for name in short] == bits


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_unavailable_devices_are_refused(name):
    with pytest.raises(ValueError, match="expected auto, cpu, cuda"):
        pick_device(name)


def test_unknown_types_are_refused():
    with pytest.raises(ValueError, match="expected one of float32, bfloat16, float16"):
        pick_dtype("int8")
    with pytest.raises(ValueError, match="expected a floating-point type"):
        pick_dtype(torch.int8)

"""Devices and floating-point formats by name."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str | torch.device) -> torch.device:
    """Return the torch device of a name. "auto" selects CUDA if available, else MPS, else the CPU.

    Raises:
        ValueError: The device is unrecognized or unavailable.
    """
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {name!r} is not available here; expected auto, cpu, cuda, cuda:N or mps") from None
    return device


def pick_dtype(name: str | torch.dtype) -> torch.dtype:
    """Return the floating-point type of a name. Raise a ValueError if it is not one of `DTYPES`."""
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r}, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Devices and floating-point formats by name."""

from __future__ import annotations

import torch

from adaptok.utils.dtypes import DTYPE_ALIASES, expand_dtype

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
        available = device.type != "meta"  # which has shapes only
    except (RuntimeError, AssertionError):
        available = False
    if not available:
        raise ValueError(f"device {str(name)!r} is not available here; expected auto, cpu, cuda, cuda:N or mps")
    return device


def pick_dtype(name: str | torch.dtype) -> torch.dtype:
    """Return the floating-point type of a name: one of `DTYPES`, or a usual short name of one (`DTYPE_ALIASES`).

    Names may begin with "torch.". A torch type is returned as it is.

    Raises:
        ValueError: The name is unrecognized, or the type is no floating-point type.
    """
    if isinstance(name, torch.dtype):
        if not name.is_floating_point:
            raise ValueError(f"dtype {name}, expected a floating-point type, such as one of {', '.join(DTYPES)}")
        return name
    full_name = expand_dtype(name)
    if full_name not in DTYPES:
        raise ValueError(f"dtype {name!r}, expected one of {', '.join((*DTYPES, *DTYPE_ALIASES))}")
    return DTYPES[full_name]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

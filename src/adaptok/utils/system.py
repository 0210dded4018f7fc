"""What computes: its name, the versions on it, and the memory of this process."""

from __future__ import annotations

import platform
import re
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("adaptok", "torch", "numpy", "av", "torchmetrics", "safetensors")
_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """The most bytes that this process had resident."""
    if _STATUS.exists():  # what getrusage says counts the parent's from before this process started
        found = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers come from."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, system, device, and threads that torch uses."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        name = found[1]
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return {"processor": name, "system": platform.system(), "device": str(device), "threads": torch.get_num_threads()}

"""Description of the machine, versions of packages, and command line and peak memory of this process."""

from __future__ import annotations

import os
import platform
import re
import resource
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("adaptok", "torch", "numpy", "av", "torchmetrics", "safetensors")
_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    if _STATUS.exists():  # getrusage includes memory of the parent process from before the fork
        match = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def total_memory() -> int | None:
    """Return the memory of the machine in bytes; None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def command_line() -> str:
    """Return the command line of this process."""
    return shlex.join(["adaptok", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    result = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            result[package] = "not installed"
    return result


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the names of processor, operating system and device, and the number of threads that torch uses."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        name = match[1]
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return {"processor": name, "system": platform.system(), "device": str(device), "threads": torch.get_num_threads()}

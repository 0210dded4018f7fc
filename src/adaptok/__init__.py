"""Video in, short adaptive sequences of discrete tokens out, and back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptok.allocation.knapsack import Allocation, allocate
    from adaptok.allocation.policy import LengthPolicy
    from adaptok.checkpoints.model_folder import CheckpointError
    from adaptok.codec.clips import EncodedClips
    from adaptok.codec.codec import AdapTok
    from adaptok.codec.streaming import BlockTokens, Streaming
    from adaptok.codec.token_file import TokenFileError, TokenMismatchError, VideoTokens
    from adaptok.codec.token_info import TokenInfo
    from adaptok.generation import Generator, Samples, Sampling
    from adaptok.video.container import VideoError
    from adaptok.video.limits import Limits

__version__ = "0.1.0"

__all__ = [
    "AdapTok",
    "Allocation",
    "BlockTokens",
    "CheckpointError",
    "EncodedClips",
    "Generator",
    "LengthPolicy",
    "Limits",
    "Samples",
    "Sampling",
    "Streaming",
    "TokenFileError",
    "TokenInfo",
    "TokenMismatchError",
    "VideoError",
    "VideoTokens",
    "allocate",
]

_MODULES = {
    "AdapTok": "codec.codec",
    "Allocation": "allocation.knapsack",
    "BlockTokens": "codec.streaming",
    "CheckpointError": "checkpoints.model_folder",
    "Generator": "generation",
    "EncodedClips": "codec.clips",
    "Samples": "generation",
    "Sampling": "generation",
    "LengthPolicy": "allocation.policy",
    "Limits": "video.limits",
    "Streaming": "codec.streaming",
    "TokenFileError": "codec.token_file",
    "TokenInfo": "codec.token_info",
    "TokenMismatchError": "codec.token_file",
    "VideoError": "video.container",
    "VideoTokens": "codec.token_file",
    "allocate": "allocation.knapsack",
}
"""Module that defines each public name. It is imported on first use, so that `adaptok --help` need not import torch."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

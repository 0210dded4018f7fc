"""Video in, short adaptive sequences of discrete tokens out, and back."""

from adaptok.allocation import Allocation, allocate
from adaptok.checkpoints import CheckpointError
from adaptok.codec import AdapTok, Latents
from adaptok.generation import Generator, Samples, Sampling
from adaptok.spending import Spending
from adaptok.streaming import BlockTokens, Streaming
from adaptok.tokens import TokenFileError, TokenInfo, TokenMismatchError, VideoTokens
from adaptok.video.reading import VideoError

__version__ = "0.1.0"

__all__ = [
    "AdapTok",
    "Allocation",
    "BlockTokens",
    "CheckpointError",
    "Generator",
    "Latents",
    "Samples",
    "Sampling",
    "Spending",
    "Streaming",
    "TokenFileError",
    "TokenInfo",
    "TokenMismatchError",
    "VideoError",
    "VideoTokens",
    "allocate",
]

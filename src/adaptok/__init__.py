"""Video in, short adaptive sequences of discrete tokens out, and back."""

from adaptok.allocation.knapsack import Allocation, allocate
from adaptok.allocation.policy import Spending
from adaptok.checkpoints.model_folder import CheckpointError
from adaptok.codec.codec import AdapTok, Latents
from adaptok.codec.streaming import BlockTokens, Streaming
from adaptok.codec.token_file import TokenFileError, TokenInfo, TokenMismatchError, VideoTokens
from adaptok.generation import Generator, Samples, Sampling
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

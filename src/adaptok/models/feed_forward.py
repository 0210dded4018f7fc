"""MLPs of transformer blocks, on rows `[..., D]`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.transformer import StackConfig
from adaptok.ops.swiglu import swiglu


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202): down(silu(gate x) * up x). Gate and up are stored in one matrix, in this order."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x)))


def build_mlp(config: StackConfig) -> Mlp | FeedForward:
    """Build the configured MLP."""
    kinds: dict[str, type[Mlp] | type[FeedForward]] = {"gelu": Mlp, "swiglu": FeedForward}
    return kinds[config.mlp](config.width, config.hidden)

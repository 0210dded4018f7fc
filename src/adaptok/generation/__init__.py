"""Generation of new clips, from the settings of a draw to frames."""

from adaptok.generation.generator import Generator
from adaptok.generation.sampling import Samples, Sampling

__all__ = ["Generator", "Samples", "Sampling"]

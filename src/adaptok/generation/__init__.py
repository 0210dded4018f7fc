"""From tokens to new video: the generator as a user holds it, and how it is sampled."""

from adaptok.generation.generator import Generator
from adaptok.generation.sampling import Samples, Sampling

__all__ = ["Generator", "Samples", "Sampling"]

"""Options of `adaptok generate` and `adaptok predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from adaptok.cli.options import MODEL_NAME, Computation, Switch, option
from adaptok.config.choices import WeightFormat

if TYPE_CHECKING:
    from adaptok.generation import Generator, Sampling


@dataclass(kw_only=True)
class SamplingOptions:
    """How tokens are drawn."""

    temperature: float = 1.0
    """Temperature of the draw. 1 samples the distribution of the generator, lower values prefer likely tokens, 0 always
    takes the most likely one."""
    top_k: Annotated[int | None, option("K")] = None
    """Draw only from the K most likely tokens. All are candidates by default."""
    top_p: Annotated[float | None, option("P")] = None
    """Draw only from the most likely tokens whose probabilities sum to P, between 0 and 1. All are candidates by
    default."""
    budget: Annotated[int | None, option("N")] = None
    """Maximum number of tokens per clip. The default is the maximum of the generator."""
    min_tokens: int = 0
    """Minimum number of tokens per block. The default lets the generator decide when a block ends."""
    max_tokens: Annotated[int | None, option("N")] = None
    """Maximum number of tokens per block. The default is the maximum of the tokenizer."""
    seed: int = 0
    """Seed of the random numbers. The same seed gives the same videos, whatever the batch size."""

    def settings(self, **more: Any) -> Sampling:
        """The settings for `Generator.sample`."""
        from adaptok.generation import Sampling

        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            budget=self.budget,
            min_length=self.min_tokens,
            max_length=self.max_tokens,
            **more,
        )


@dataclass(kw_only=True)
class GeneratorComputation(Computation):
    """Which models to use, and where to compute."""

    generator: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Generator folder, or id of a generator on the Hugging Face hub with its branch, tag or commit
    (owner/name@revision). The bundled generator is the default. --model is the tokenizer whose tokens it generates."""
    compile: Switch = False
    """Compile the decode step, and record it as CUDA graphs on a GPU. Compilation takes about a minute and pays off for
    many clips."""

    def load_generator(self, seed: int, weights: WeightFormat = "float") -> Generator:
        """Load the generator and its tokenizer."""
        from adaptok.generation import Generator

        self.check()
        if seed < 0:
            raise ValueError(f"--seed {seed}, expected 0 or more")
        return Generator.from_pretrained(
            self.generator,
            codec=self.model,
            device=self.device,
            dtype=self.dtype,
            weights=weights,
            compile=self.compile,
        )


@dataclass(kw_only=True)
class SamplingComputation(GeneratorComputation):
    """Which models to use, and where and how precisely to compute."""

    weights: WeightFormat = "float"
    """How the generator stores the weights of its linear layers. float keeps them in the format of --dtype; int8 rounds
    them to 8 bits, which is faster and needs less memory, on a CPU and without --compile. The videos of a seed differ
    between the two."""

"""Models of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from adaptok.codec.codec import AdapTok
from adaptok.generation import Generator


@dataclass(frozen=True)
class Models:
    """Models that compute.

    Attributes:
        codec: Tokenizer.
        generator: Generator of classes; None leaves the tab Generate out.
        note: Why there is no generator.
    """

    codec: AdapTok
    generator: Generator | None = None
    note: str | None = None


def load_models(
    model: str | None = None, generator: str | None = None, *, device: str = "auto", dtype: str = "float32"
) -> Models:
    """Load the models of the demo.

    Args:
        model: Folder or hub id of a tokenizer; None is the bundled one.
        generator: Folder or hub id of a generator of classes; None is the bundled one, if it fits the tokenizer.
        device, dtype: As for `AdapTok.from_pretrained`.

    Raises:
        ValueError: The named generator does not fit the tokenizer, or predicts frames. Others as for
            `AdapTok.from_pretrained`.
    """
    codec = AdapTok.from_pretrained(model, device=device, dtype=dtype)
    try:
        loaded = Generator.from_pretrained(generator, codec=codec, device=device, dtype=dtype)
    except ValueError as error:
        if generator is not None:
            raise
        return Models(codec, note=str(error))
    if not loaded.config.classes:
        raise ValueError(f"{generator}: predicts frames, expected a generator of classes; see 'adaptok predict'")
    return Models(codec, loaded)

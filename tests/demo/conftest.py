from __future__ import annotations

import pytest
import torch

from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.demo.models import Models
from adaptok.demo.sessions import Sessions
from adaptok.generation import Generator
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import weights_hash
from tests.helpers.models import random_model, small_config
from tests.helpers.videos import write_video


@pytest.fixture
def models() -> Models:
    """A small tokenizer and a small generator of two classes."""
    model = random_model(small_config())
    codec = AdapTok(model, weights_hash(model.state_dict()))
    c = codec.config.tokenizer
    torch.manual_seed(0)
    config = GeneratorConfig(
        name="test generator",
        width=32,
        depth=2,
        heads=2,
        codebook_size=c.quantizer.codebook_size,
        blocks=c.blocks,
        latents=c.latents,
        classes=2,
        labels=("left", "right"),
    )
    return Models(codec, Generator(GeneratorModel(config), codec))


@pytest.fixture
def session(tmp_path):
    return Sessions(tmp_path).get("visitor")


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clips" / "my clip.mp4"
    write_video(path, 20)
    return path

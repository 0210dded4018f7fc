"""Small random generators."""

from __future__ import annotations

import pytest
import torch

from adaptok.configuration import GeneratorConfig
from adaptok.models.generator import GeneratorModel

SIZE = {"width": 32, "depth": 2, "heads": 2, "blocks": 3, "latents": 5}
KINDS = {
    "classes": GeneratorConfig(**SIZE, codebook_size=24, classes=3, labels=("cat", "dog", "fox")),
    "frames": GeneratorConfig(**SIZE, codebook_size=24, condition_ids=10, first_block=1),
    "digits": GeneratorConfig(**SIZE, codebook_size=24, classes=3, levels=(4, 3, 2), mixture=2),
}


def build(kind: str) -> GeneratorModel:
    torch.manual_seed(3)
    model = GeneratorModel(KINDS[kind])
    for parameter in model.parameters():  # the output layer too, and sharp enough to differ
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture(params=list(KINDS))
def model(request) -> GeneratorModel:
    return build(request.param)

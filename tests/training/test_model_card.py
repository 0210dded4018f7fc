"""Model cards of training runs: metadata that the hub reads, results, figures, and no private paths."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from adaptok.models.generator import GeneratorModel
from adaptok.training.model_card import write_model_card
from adaptok.training.token_data import open_token_data
from tests.helpers.generators import generator_config, write_tokens
from tests.helpers.models import random_model, small_config
from tests.helpers.training import config


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run with two validations, curves and samples, as a trainer leaves it."""
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    lines = [
        {"step": 5, "validation_psnr_8": 11.0, "validation_fvd_8": 90.0},
        {"step": 9, "loss": 0.5},
        {"step": 10, "validation_psnr_8": 12.3456, "validation_lpips_alex_8": 0.5, "validation_codebook_usage": 0.75},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("metrics.png", "samples/step-00000005.png", "samples/step-00000010.png"):
        Image.new("RGB", (8, 8)).save(run / name)
    (run / "samples/step-00000010.png").write_bytes(b"the latest samples")
    return run


def test_card_of_a_tokenizer(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    data = {"train": ["/home/somebody/clips", "~/more", "photographs"], "validation": "/home/somebody/held-out"}
    options = config(tmp_path, "tokenizer", data=data, initial="them/base", max_steps=10)
    write_model_card(folder, random_model(small_config()), options, run, steps=10, batch_size=4)
    card = ModelCard.load(folder / "README.md")
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "adaptok"
    assert metadata["pipeline_tag"] == "video-to-video"
    assert metadata["tags"] == ["video", "video-tokenizer", "discrete-tokens"]
    assert metadata["base_model"] == "them/base"
    assert metadata["metrics"] == ["psnr", "fvd", "lpips_alex", "codebook_usage"]
    [model] = metadata["model-index"]
    [results] = model["results"]
    assert (model["name"], results["dataset"]["name"]) == ("test", "held-out")
    assert results["metrics"][0] == {"type": "psnr", "value": 12.35, "name": "PSNR (dB) at 8 tokens per block"}
    assert "| LPIPS (AlexNet) | 8 | 0.5 |" in card.text
    assert "| codebook usage |  | 0.75 |" in card.text
    assert "A tokenizer for clips of 8 frames of 16x16 pixels, trained for 10 steps of 4 clips." in card.text
    assert "- Data: clips, more, photographs\n- Initial model: them/base\n" in card.text
    assert "somebody" not in str(card)
    pictures = re.findall(r"!\[.+\]\((.+)\)", card.text)
    assert [(folder / name).read_bytes() for name in pictures] == [
        (run / name).read_bytes() for name in ("metrics.png", "samples/step-00000010.png")
    ]
    stored = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)[1])
    assert stored["max_steps"] == 10
    assert stored["data"]["validation"] == "held-out"


def test_terms_of_the_bundled_model_are_stated(tmp_path):
    options = config(tmp_path, "tokenizer", initial="adaptok-tiny")
    write_model_card(tmp_path, random_model(small_config()), options, tmp_path / "nowhere", steps=1, batch_size=1)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict()["license"] == "other"
    assert "- Initial model: adaptok-tiny, for research and demonstration\n" in card.text


def test_card_of_a_generator_that_was_not_validated(tmp_path):
    options = generator_config(write_tokens(tmp_path / "tokens"))
    model = GeneratorModel(open_token_data(options).config)
    write_model_card(tmp_path, model, options, tmp_path / "nowhere", steps=3, batch_size=None)
    card = ModelCard.load(tmp_path / "README.md")
    assert "model-index" not in card.data.to_dict()
    assert "## Results\n\nNot validated.\n" in card.text
    assert "- Length: 3 steps\n- Data: tokens\n" in card.text
    assert 'samples = generator.sample(["bounce"], seeds=[0])' in card.text

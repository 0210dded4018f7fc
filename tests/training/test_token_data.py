"""Token datasets of a generator's run, and the errors of those that do not fit."""

from __future__ import annotations

import pytest

from adaptok.data.token_datasets import write_shard
from adaptok.training.token_data import open_token_data
from adaptok.training.trainer import Trainer
from tests.helpers.generators import generator_config, info, make_clips, write_tokens


def test_held_out_clips_are_of_other_videos(tmp_path):
    path = write_tokens(tmp_path / "tokens", 40)
    data = open_token_data(generator_config(path, data={"train": [path], "held_out": 0.3, "validation_clips": 9}))
    dataset = data.train.dataset
    trained = {dataset[int(place)].source for place in data.train.clips}
    held = {dataset[int(place)].source for place in data.validation.clips}
    assert not trained & held
    assert len(data.validation) == 9
    assert len(data.train) == 40 - 12


@pytest.mark.parametrize(
    ("of", "model", "data", "message"),
    [
        (
            info(),
            {"model": "other"},
            {},
            "made by the model test with weights abababab, the generator is for other",
        ),
        (info(), {"model_hash": "cd" * 32}, {}, "with weights cdcdcdcd"),
        (info(), {"latents": 7}, {}, "model.latents 7 does not fit the token dataset, which has 6"),
        (info(), {"levels": [60]}, {}, r"model.levels \[60\] does not fit"),
        (info(), {"condition": "frames"}, {}, "0 condition frames of 6"),
        (info(levels=()), {"mixture": 2}, {}, "mixture 2 needs levels"),
        (info(), {}, {"labels": ["bounce", "orbit"]}, "unknown label 'slide' in the token dataset"),
        (info(), {"classes": 5}, {}, "model.classes 5 does not fit the token dataset, which has 3"),
        (info(), {}, {"held_out": 0.99}, "data.held_out 0.99 holds out all"),
        (info(), {}, {"validation": "gone"}, "no such token dataset"),
        (info(), {}, {"train": []}, "data.train is empty"),
    ],
)
def test_mistakes_are_one_line(tmp_path, of, model, data, message):
    path = write_tokens(tmp_path / "tokens", 8, of)
    options = generator_config(
        path, model={"width": 32, "depth": 2, "heads": 2, **model}, data={"train": [path], **data}
    )
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        open_token_data(options)
    assert "\n" not in str(error.value)


def test_datasets_that_do_not_fit_are_rejected(tmp_path):
    first = write_tokens(tmp_path / "first")
    empty = write_tokens(tmp_path / "empty", 0)
    other = write_tokens(tmp_path / "other", 8, info(model_hash="cd" * 32))
    unlabelled = write_tokens(tmp_path / "unlabelled", 8, label=False)
    with pytest.raises(ValueError, match="an empty token dataset"):
        open_token_data(generator_config(empty))
    with pytest.raises(ValueError, match="another model_hash"):
        open_token_data(generator_config(first, data={"train": [first, other]}))
    with pytest.raises(ValueError, match=r"other: model_hash cdcd.* of the training data"):
        open_token_data(generator_config(first, data={"train": [first], "validation": other}))
    with pytest.raises(ValueError, match="neither labels nor conditions"):
        open_token_data(generator_config(unlabelled))
    with pytest.raises(ValueError, match="8 of 8 clips of the token dataset have no label"):
        open_token_data(generator_config(unlabelled, data={"train": [unlabelled], "labels": ["bounce"]}))
    damaged = write_tokens(tmp_path / "damaged")
    data = bytearray((tmp_path / "damaged" / "0.parquet").read_bytes())
    data[20] ^= 1
    (tmp_path / "damaged" / "0.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"0\.parquet: damaged, .*; remove the file and repeat"):
        open_token_data(generator_config(damaged))
    options = generator_config(first, max_steps=2)
    Trainer(options, open_token_data(options), tmp_path / "run").train()
    write_shard(tmp_path / "first" / "0.parquet", make_clips(8, info(model_hash="cd" * 32)), info(model_hash="cd" * 32))
    with pytest.raises(ValueError, match="differs from the one that the run began with"):
        Trainer(options, open_token_data(options), tmp_path / "run")

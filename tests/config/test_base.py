"""The base class of configurations."""

from __future__ import annotations

import pytest

from adaptok.config.training import TrainingConfig
from tests.helpers.generators import info
from tests.helpers.models import small_config


def test_the_first_difference_is_the_innermost_field():
    config = small_config()
    assert config.first_difference(small_config()) is None
    tokenizer = config.tokenizer.model_copy(update={"latents": 4})
    changed = config.model_copy(update={"tokenizer": tokenizer})
    assert config.first_difference(changed) == ("latents", 8, 4)
    assert config.first_difference(changed, ignore={"latents"}) is None


def test_optional_configurations_differ_as_a_whole():
    config = small_config()
    name, value, other = config.first_difference(config.model_copy(update={"scorer": None}))
    assert (name, other) == ("scorer", None)
    assert value == config.scorer.model_dump()
    assert info().first_difference(info(latents=7)).other == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: \xff", "byte 3 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"a: 2020-99-99", "not a YAML file"),
        (b"trackers: 3", "trackers"),
    ],
)
def test_invalid_files_are_named(tmp_path, data, message):
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"run\.yaml: .*{message}"):
        TrainingConfig.load(path)


def test_many_problems_are_counted():
    values = {f"field_{index}_{'x' * 40}": index for index in range(60)}
    with pytest.raises(ValueError, match=r"^run: .*; and \d+ more problems$") as error:
        TrainingConfig.parse(values, "run")
    assert len(str(error.value)) < 1500

"""Order of the sequences of a generator."""

from __future__ import annotations

import numpy as np

from adaptok.training.token_data import open_token_data
from tests.helpers.generators import generator_config, write_tokens


def test_an_epoch_has_every_clip_once_and_rows_follow_from_seed_and_index(tmp_path):
    path = write_tokens(tmp_path / "tokens", 10)
    rows = open_token_data(generator_config(path, seed=3)).train
    places = [rows.clip_index(index) for index in range(30)]
    epochs = [places[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = open_token_data(generator_config(path, seed=3)).train
    for index in (27, 4, 13):  # in any order
        one, other = rows[index], again[index]
        assert np.array_equal(one.entries, other.entries)
        assert one.condition == other.condition
    dropped = [int(rows[index].condition) == rows.config.classes for index in range(600)]
    assert 30 < sum(dropped) < 100  # a tenth
    other = open_token_data(generator_config(path, seed=4)).train
    assert [other.clip_index(index) for index in range(30)] != places

"""Properties of readers for arbitrary values. ADAPTOK_EXAMPLES sets the number of examples of each, 40 by default."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptok.codec.token_file import TokenFileError, VideoTokens
from adaptok.config.training import TrainingConfig, config_fields
from adaptok.data.manifests import read_manifest
from tests.fuzz.harness import Refused, attempt

EXAMPLES = settings(
    max_examples=int(os.environ.get("ADAPTOK_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KEYS = sorted({field.key.partition(".")[0] for field in config_fields("tokenizer")})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
)


@EXAMPLES
@given(st.dictionaries(st.sampled_from(KEYS), DOCUMENTS, max_size=4))
def test_configurations_of_any_values_are_valid_or_refused(values):
    with contextlib.suppress(Refused):
        attempt(ValueError, TrainingConfig.parse, {"stage": "tokenizer", **values}, "run.yaml")


@EXAMPLES
@given(st.text(alphabet=st.sampled_from("ab,\"'\\ \n\r\t\0\u2028ä#") | st.characters(codec="utf-8")))
def test_lists_of_any_text_are_read_line_by_line_or_refused(tmp_path, text):
    for name in ("list.csv", "list.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        with contextlib.suppress(Refused):
            entries = attempt(ValueError, read_manifest, path)
            assert 0 < len(entries) <= text.count("\n") + text.count("\r") + 1
            assert all(entry.label != "" for entry in entries)


@EXAMPLES
@given(st.binary())
def test_token_files_of_any_bytes_are_refused(data):
    with pytest.raises(Refused):
        attempt(TokenFileError, VideoTokens.from_bytes, data)

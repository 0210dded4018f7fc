"""A small model, and a collection of videos to tokenize."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptok.codec.codec import AdapTok
from tests.helpers.tokenization import small_codec, write_collection


@pytest.fixture(scope="module")
def codec() -> AdapTok:
    return small_codec()


@pytest.fixture(scope="module")
def model(codec, tmp_path_factory) -> str:
    """Folder of the model."""
    folder = tmp_path_factory.mktemp("model")
    codec.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_collection(folder)
    return folder

"""`adaptok decode` of rows of a token dataset, and the same rows in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adaptok import AdapTok
from adaptok.cli.decode_rows import parse_rows
from adaptok.cli.main import main
from adaptok.data.token_datasets import TokenDataset
from adaptok.tokenization import tokenize
from adaptok.tokenization.rows import row_tokens
from adaptok.video.reading import probe
from tests.helpers.tokenization import options, small_codec, write_brightening_video

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"


@pytest.fixture(scope="module")
def codec() -> AdapTok:
    return small_codec()


@pytest.fixture(scope="module")
def data(codec, tmp_path_factory) -> Path:
    """A folder with a model, and a token dataset of four clips in two shards, with scores."""
    folder = tmp_path_factory.mktemp("rows")
    codec.save_pretrained(folder / "model")
    for name, frames in (("a one", 16), ("b", 24), ("c", 5)):
        write_brightening_video(folder / "videos" / f"{name}.mp4", frames, frames)
    tokenize(folder / "videos", folder / "tokens", codec, options(shard_clips=2, fps=15, stride=4))
    return folder


@pytest.fixture
def run(data, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return the exit code, standard output as JSON, and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = 0
        try:
            flags = ["--model", str(data / "model"), "--device", "cpu", "--json", "--quiet"]
            main(["decode", *map(str, arguments), *flags])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


def test_rows_are_decoded(run, codec, data, tmp_path):
    dataset = TokenDataset.open(data / "tokens")
    count = len(dataset)
    assert len(list((data / "tokens").glob("*.parquet"))) > 1
    code, document, err = run(data / "tokens", "--rows", "0", f"2-{count - 1}")
    assert (code, err, document["done"], document["out"]) == (0, "", count - 1, "tokens-decoded")
    first, last = document["results"][0], document["results"][-1]
    assert (first["row"], first["source"], first["start"]) == (0, "a one.mp4", 0)
    assert first["out"] == str(Path("tokens-decoded/000000-a_one.mp4"))
    assert first["input"] == f"{data / 'tokens'}, row 0"
    assert (last["row"], last["source"], last["out"]) == (
        count - 1,
        "c.mp4",
        str(Path(f"tokens-decoded/{count - 1:06d}-c.mp4")),
    )
    info = probe(tmp_path / last["out"])
    assert (info.frames, info.fps, info.width, info.height) == (8, 15, 64, 48)
    code, document, _ = run(data / "tokens", "-o", "tokens-decoded")
    assert (code, document["done"], document["skipped"]) == (0, 1, count - 1)


def test_a_row_is_written_to_a_file(run, data, tmp_path):
    shard = sorted((data / "tokens").glob("*.parquet"))[1]
    count = len(TokenDataset.open(shard))
    assert count > 1
    code, document, _ = run(shard, "one.mp4", "--rows", 1, "--square")
    assert (code, document["results"][0]["row"]) == (0, 1)
    assert probe(tmp_path / "one.mp4").width == 16
    code, _, err = run(shard, "one.mp4", "--rows", 1)
    assert (code, "one.mp4: exists already" in err) == (2, True)
    assert run(shard, "one.mp4", "--rows", 1, "--skip-existing")[1]["skipped"] == 1
    code, _, err = run(shard, "two.mp4")
    assert (code, f"one video for {count} rows, expected a folder, or one row with --rows" in err) == (2, True)


def test_rows_are_shortened_by_their_scores(run, codec, data):
    code, document, _ = run(data / "tokens", "--rows", 0, "--budget", 10)
    assert (code, document["results"][0]["tokens"] <= 10) == (0, True)
    row = TokenDataset.open(data / "tokens", scores=True)[0]
    assert row.scores.shape == (4, 4)
    assert TokenDataset.open(data / "tokens")[0].scores is None
    code, _, err = run(data / "tokens", "--rows", 0, "--budget", 1, "--force")
    assert (code, len(err.splitlines())) == (2, 1)


def test_rows_give_the_tokens_of_their_clip(codec, data):
    dataset = TokenDataset.open(data / "tokens", scores=True)
    tokens = row_tokens(dataset.info, dataset[0])
    assert (tokens.info.fit, tokens.info.fps, tokens.info.frames) == ("crop", 15, 8)
    alone = codec.encode(data / "videos" / "a one.mp4", fps=15, stop=8 / 15)
    kept = alone.shorten(tokens.lengths)
    assert np.array_equal(kept.ids, tokens.ids)
    np.testing.assert_allclose(alone.scores, tokens.scores, rtol=1e-5)
    assert np.array_equal(codec.decode(tokens), codec.decode(kept))


def test_rows_of_older_datasets_are_squares(tmp_path):
    flags = ["--rows", "0", "--model", str(FORMATS / "model"), "--device", "cpu", "--quiet"]
    main(["decode", str(FORMATS / "token-datasets/labels"), str(tmp_path / "x"), *flags])
    [video] = (tmp_path / "x").iterdir()
    assert probe(video).width == probe(video).height


@pytest.mark.parametrize(
    ("words", "rows"),
    [((), [0, 1, 2, 3, 4]), (("3", "1-2", "1"), [3, 1, 2]), (("0,2-3",), [0, 2, 3])],
)
def test_choice_of_rows(words, rows):
    assert parse_rows(words, 5, Path("x")) == rows


@pytest.mark.parametrize("word", ["5", "3-2", "1-5", "x", "-1", "1:3", ""])
def test_wrong_rows(word):
    with pytest.raises(ValueError, match=f"--rows {word}: expected"):
        parse_rows((word,), 5, Path("x"))


def test_mistakes(run, data, tmp_path):
    (tmp_path / "x.adaptok").write_text("")
    (tmp_path / "file").write_text("")
    other = FORMATS / "token-datasets/labels"
    for arguments, message in (
        (["x.adaptok", "--rows", 1], "--rows 1: expected a token dataset, which x.adaptok is not"),
        ([data / "tokens", "file"], "file: a file, expected a folder"),
        ([data / "tokens", "--rows", 99], "--rows 99: expected 0 to"),
        ([other, "--rows", 0], "give the model that wrote them"),
    ):
        code, _, err = run(*arguments)
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err

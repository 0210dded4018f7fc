"""Rows of token datasets are those of the codec, for every scope, stride and condition."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from adaptok.allocation.knapsack import allocate
from adaptok.data.manifests import find_entries, write_index
from adaptok.data.token_datasets import TokenDataset
from adaptok.tokenization import TokenPlan, tokenize
from adaptok.tokenization.shard_writer import ShardWriter
from adaptok.video.reading import read_video
from tests.helpers.tokenization import (
    PT,
    STEP,
    G,
    K,
    L,
    T,
    by_video,
    clips_of,
    contents,
    options,
    rows,
    shards,
    write_brightening_video,
)


@pytest.mark.parametrize("stride", [1, 3, 8, 11])
def test_every_clip_is_stored_with_the_ids_and_lengths_of_the_codec(codec, videos, tmp_path, stride):
    done = tokenize(videos, tmp_path / "out", codec, options(stride=stride))
    stored, scores = by_video(tmp_path / "out"), rows(tmp_path / "out")
    assert list(stored) == sorted(stored)
    assert done.clips == sum(map(len, stored.values())) == len(scores)
    place = 0
    for source, clips in stored.items():
        expected = clips_of(videos / source, stride)
        assert [clip.start for clip in clips] == [index * stride for index in range(len(expected))]
        assert {clip.label for clip in clips} == {source.split("/")[0]}
        latents = codec.encode_clips(expected)
        predicted = codec.score_clips(latents, normalized=False).flatten(0, 1).numpy()
        lengths = allocate(predicted, 12 * len(clips), length_step=STEP).lengths.reshape(-1, G)
        own_scores = np.array([row["scores"] for row in scores[place : place + len(clips)]], np.float32)
        np.testing.assert_allclose(own_scores.reshape(-1, L), predicted, rtol=1e-4)
        place += len(clips)
        for clip, ids, own in zip(clips, latents.ids.numpy(), lengths, strict=True):
            assert clip.lengths.tolist() == own.tolist()
            assert clip.ids.tolist() == ids[np.arange(K) < own[:, None]].tolist()
    assert stored.keys().isdisjoint(["class1/zero.mp4", "class0/text.mp4"])
    assert "class0/short.mp4" in stored


@pytest.mark.parametrize("scope", ["video", "clip", "stream"])
@pytest.mark.parametrize("choice", [{"budget": 12}, {"budget": None, "target": 0.12}, {"budget": 9, "uniform": True}])
def test_rows_equal_the_tokens_of_encode(codec, videos, tmp_path, scope, choice):
    tokenize(videos, tmp_path / "out", codec, options(scope=scope, **choice))
    for source, clips in by_video(tmp_path / "out").items():
        tokens = codec.encode(videos / source, scope=scope, **choice)
        if tokens.info.frames % T == 0:  # otherwise the incomplete last clip takes part of the budget
            assert np.concatenate([clip.ids for clip in clips]).tolist() == tokens.ids.tolist()
            assert np.concatenate([clip.lengths for clip in clips]).tolist() == tokens.lengths.tolist()


@pytest.mark.parametrize("scope", ["video", "clip", "batch", "stream"])
def test_an_unreachable_target_selects_the_best_lengths(codec, videos, tmp_path, scope):
    tokenize(videos, tmp_path / "out", codec, options(budget=None, target=1e-6, scope=scope))
    for row in rows(tmp_path / "out"):
        chosen = np.array(row["lengths"]) // STEP - 1
        scores = np.array(row["scores"]).reshape(G, L)
        np.testing.assert_allclose(scores[np.arange(G), chosen], scores.min(1), rtol=1e-4)


def test_the_scope_batch_is_the_official_procedure(codec, videos, tmp_path):
    one = tmp_path / "class"
    write_brightening_video(one / "a.mp4", 45, 3)  # 5 clips: a batch of 4, and 1
    for budget in (12, (8, 4, 2, 2)):
        out = tmp_path / f"{budget}"
        tokenize(one, out, codec, options(scope="batch", budget=budget))
        tokens = codec.encode(read_video(one / "a.mp4")[0][:40], budget, "batch", batch_size=4)
        clips = by_video(out)["a.mp4"]
        assert np.concatenate([clip.lengths for clip in clips]).tolist() == tokens.lengths.tolist()
        assert np.concatenate([clip.ids for clip in clips]).tolist() == tokens.ids.tolist()
    with pytest.raises(ValueError, match="begun with batch_size 4, not 2"):
        tokenize(one, out, codec, options(scope="batch", budget=(8, 4, 2, 2), batch_size=2))


@pytest.mark.parametrize("frames", [1, 3, 4, 7])
@pytest.mark.parametrize("scope", ["video", "clip", "batch", "stream"])
def test_the_condition_is_the_first_frames_alone(codec, videos, tmp_path, frames, scope):
    done = tokenize(videos, tmp_path / "out", codec, options(condition_frames=frames, scope=scope))
    dataset = TokenDataset.open(tmp_path / "out")
    first, reached = frames // PT, -(-frames // PT)
    assert (dataset.info.first_block, dataset.info.condition_ids) == (first, reached * K)
    for source, clips in by_video(tmp_path / "out").items():
        shown = clips_of(videos / source, T)
        shown[:, :, frames:] = shown[:, :, frames - 1 : frames]
        ids = codec.encode_clips(shown).ids[:, :reached].flatten(1)
        assert [clip.condition.tolist() for clip in clips] == ids.tolist()
        for clip in clips:
            assert clip.lengths[:first].tolist() == [K] * first
            assert clip.ids[: first * K].tolist() == clip.condition[: first * K].tolist()
        free = sum(int(clip.lengths[first:].sum()) for clip in clips)
        if scope in ("video", "clip"):
            assert len(clips) * (3 * (G - first) - STEP) < free <= len(clips) * 3 * (G - first)
    if scope == "batch":  # each batch of a block meets its budget to the step
        assert abs(done.tokens - done.clips * (K * first + 3 * (G - first))) <= STEP * done.clips


def test_all_tokens_without_scores_and_labels(codec, videos, tmp_path):
    done = tokenize(videos, tmp_path / "all", codec, options(budget=None, limit=2, labels=False, scores=False))
    stored = rows(tmp_path / "all")
    assert {(row["label"], row["scores"], len(row["ids"])) for row in stored} == {(None, None, G * K)}
    assert done.tokens == done.clips * G * K
    starts = [row["start"] for row in stored if row["source"] == "class0/2.mp4"]
    assert starts == [0, T]
    tokenize(videos, tmp_path / "slow", codec, options(fps=15, stride=1))
    assert len(by_video(tmp_path / "slow")["class0/2.mp4"]) == 20 - T + 1


def test_broken_files_are_listed(codec, videos, tmp_path):
    out = tmp_path / "out"
    done = tokenize(videos, out, codec, options(stride=2))
    assert done.broken.keys() == {"class0/text.mp4", "class1/cut.mkv", "class1/zero.mp4"}
    assert json.loads((out / "broken.json").read_text()) == done.broken
    assert "of about 40 frames" in done.broken["class1/cut.mkv"]
    assert 0 < len(by_video(out)["class1/cut.mkv"]) < len(by_video(out)["class1/whole.mkv"])
    assert {path.name for path in out.iterdir() if not path.name.startswith("shard-")} == {"broken.json", "plan.json"}


@pytest.mark.parametrize("damage", ["frames", "codec"])
def test_a_shard_may_have_no_rows(codec, tmp_path, damage):
    """A file of an index, or one with an intact header, turns out to be broken only when it is decoded."""
    write_brightening_video(tmp_path / "in" / "b.mp4", 16)
    data = (tmp_path / "in" / "b.mp4").read_bytes()
    start = data.index(b"mdat") + 4
    damaged = {"frames": data[:start] + bytes(len(data) - start), "codec": data.replace(b"avc1", b"zzzz")}
    (tmp_path / "in" / "a.mp4").write_bytes(damaged[damage])
    index = tmp_path / "index.csv.parquet"
    write_index(index, [replace(entry, frames=16) for entry in find_entries(tmp_path / "in", frozenset({".mp4"}))])
    done = tokenize(index, tmp_path / "out", codec, options(shard_clips=1))
    assert (done.shards, done.clips, list(done.broken)) == (2, 2, ["in/a.mp4"])
    assert len(TokenDataset.open(tmp_path / "out")) == 2


def test_resuming_keeps_finished_shards(codec, videos, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    tokenize(videos, whole, codec, options())
    seen: list[int] = []

    class Stop(Exception):
        pass

    def on_start(plan, clips):
        def advance(count):
            seen.append(count)
            if sum(seen) > clips / 2:
                raise Stop

        return advance

    with pytest.raises(Stop):
        tokenize(videos, out, codec, options(), on_start=on_start)
    before = shards(out)
    assert 0 < len(before) < len(shards(whole))
    assert not (out / ".partial").exists()
    done = tokenize(videos, out, codec, options())
    assert done.written == done.shards - len(before)
    assert {name: value for name, value in shards(out).items() if name in before} == before
    assert contents(out) == contents(whole)
    after = shards(out)
    assert tokenize(videos, out, codec, options()).written == 0
    assert shards(out) == after


def test_shards_locked_by_another_writer_are_skipped(codec, videos, tmp_path):
    """A second run, started during the first, writes every shard except the one that is locked."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    tokenize(videos, whole, codec, options())
    inner = []

    def on_start(plan, clips):
        def advance(count):
            if not inner:
                inner.append(len(contents(out)))
                writer = ShardWriter(codec, TokenPlan.read(out), out)
                inner.extend(writer.write(number) for number in range(len(plan.shards)))

        return advance

    done = tokenize(videos, out, codec, options(), on_start=on_start)
    assert inner == [0, False, *[True] * (done.shards - 1)]
    assert done.written == 1
    assert contents(out) == contents(whole)

"""Training clips: the same for the same index, whatever files are broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from adaptok.config.training import load_config
from adaptok.data.clips import ClipMixture, fixed_clips
from adaptok.data.images import ImageFolder
from adaptok.data.videos import VideoFolder
from adaptok.training.clip_data import open_clip_data
from tests.helpers.videos import write_video


@pytest.fixture
def folder(tmp_path):
    for index in range(4):
        (tmp_path / "videos" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / str(index % 2) / f"{index}.mp4", (3, 20, 40, 30)[index])
    (tmp_path / "images").mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)
        Image.fromarray(picture).save(tmp_path / "images" / f"{index}.jpg")
    return tmp_path


def mixture(folder, **options):
    sources = [VideoFolder(folder / "videos"), ImageFolder(folder / "images")]
    return ClipMixture(sources, [0.5, 0.5], frames=8, size=32, **options)


def test_a_clip_depends_on_seed_and_index_only(folder):
    first, second = mixture(folder), mixture(folder, cache_bytes=0)
    clips = [first[index] for index in range(20)]
    assert all(clip.shape == (3, 8, 32, 32) and 0 <= clip.min() <= clip.max() <= 1 for clip in clips)
    for index in (19, 3, 11):  # in another order, and without a cache
        assert torch.equal(second[index], clips[index])
    assert not any(torch.equal(mixture(folder, seed=1)[index], clips[index]) for index in range(5))
    assert len({float(clip.sum()) for clip in clips}) == 20


def test_fixed_clips_pad_short_videos(folder):
    clips = fixed_clips(folder / "videos", frames=8, size=32, per_video=1)
    assert clips.shape == (4, 3, 8, 32, 32)
    assert torch.equal(clips[0, :, 2], clips[0, :, 7])  # the first has 3 frames


def test_broken_files_are_reported_and_too_many_stop_the_run(folder):
    videos = folder / "videos"
    (videos / "zero.mp4").touch()
    (videos / "text.mp4").write_text("not a video")
    whole = (videos / "0" / "2.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) * 9 // 10])  # its beginning can be used
    config = load_config("tiny", "tokenizer")

    def data(most_broken):
        changed = config.data.model_copy(
            update={"train": (str(videos),), "validation": None, "max_broken_fraction": most_broken}
        )
        return open_clip_data(config.model_copy(update={"data": changed}))

    opened = data(0.3)
    assert {path.rsplit("/", 1)[1] for path in opened.broken} == {"zero.mp4", "text.mp4"}
    assert opened.epoch_size == 5
    assert all(opened.train[index].isfinite().all() for index in range(10))
    with pytest.raises(ValueError, match="2 of 7 files cannot be read"):
        data(0.1)
    with pytest.raises(ValueError, match=r"--data\.train"):
        open_clip_data(load_config("base", "tokenizer"))


def test_reversed_clips_are_the_same_clips_backwards(folder):
    plain, backwards = mixture(folder), mixture(folder, reversed_fraction=1.0)
    assert all(torch.equal(backwards[i], plain[i].flip(1)) for i in range(8))


def test_a_cut_switches_to_another_clip(folder):
    plain, cut = mixture(folder, still_fraction=0.0), mixture(folder, still_fraction=0.0, cut_fraction=1.0)
    kept = [(plain[i] == cut[i]).all(0).flatten(1).all(1).tolist() for i in range(12)]  # for each frame
    assert all(frames == sorted(frames, reverse=True) for frames in kept)  # the beginning, and nothing after it
    assert len({sum(frames) for frames in kept}) > 2  # the cut is at other frames


def test_smaller_crops_show_less(folder):
    sources = [VideoFolder(folder / "videos")]
    near, far = (ClipMixture(sources, [1.0], frames=4, size=32, min_crop=crop) for crop in (0.3, 1.0))
    detail = [sum(float(clips[i].diff(dim=-1).abs().mean()) for i in range(16)) for clips in (near, far)]
    assert detail[0] < 0.9 * detail[1]
    with pytest.raises(ValueError, match="min_crop"):
        ClipMixture(sources, [1.0], min_crop=1.5)

"""What the tabs of the demo compute, without gradio."""

from __future__ import annotations

import dataclasses
import re

import pytest

from adaptok.codec.codec import AdapTok
from adaptok.codec.token_file import VideoTokens
from adaptok.demo import page, reconstruction
from adaptok.demo.generation import generate
from adaptok.demo.reconstruction import Choice, budget_range, reconstruct
from adaptok.demo.sessions import MAX_SESSIONS, Cancelled, Job, Sessions
from adaptok.demo.uploads import UploadLimits, check_upload
from adaptok.generation import Sampling
from adaptok.models.model import weights_hash
from adaptok.video.reading import probe, read_video
from tests.helpers.models import random_model, small_config
from tests.helpers.videos import write_sounding_video, write_video

LIMITS = UploadLimits()


def test_a_clip_is_encoded_once_and_shortened_to_each_budget(models, clip, session, monkeypatch):
    codec, upload, job = models.codec, check_upload(clip, LIMITS), Job()
    shown = []
    job.show = lambda fraction, text: shown.append((fraction, text))
    first = reconstruct(codec, upload, [Choice(16)], "crop", session, job, "reconstruct")
    tokens = VideoTokens.load(first.tokens[0])
    assert tokens == codec.encode(clip, 16)
    assert tokens.tokens == first.reports[0].tokens.tokens <= 16 * 5 / 2
    assert len(read_video(first.videos[0])[0]) == len(read_video(first.strip)[0]) == 20
    assert probe(first.strip).width == 2 * probe(first.videos[0]).width == 2 * first.panel[1]
    assert [fraction for fraction, _ in shown] == sorted(fraction for fraction, _ in shown)
    assert shown[-1] == (1.0, "Decoding: 20 of 20 frames")

    monkeypatch.setattr(codec, "encode", None)  # not needed again
    second = reconstruct(codec, upload, [Choice(24), Choice(24, True)], "crop", session, Job(), "reconstruct")
    assert second.kinds == ["adaptive", "uniform"]
    assert not first.strip.exists()  # files of the last result of that name are removed
    assert len(set(second.reports[1].tokens.lengths)) == 1 < len(set(second.reports[0].tokens.lengths))


def test_tiles_show_the_whole_frame_with_its_sound(models, session, tmp_path):
    path = tmp_path / "wide.mp4"
    write_sounding_video(path)  # 64 x 48 pixels, 20 frames
    made = reconstruct(models.codec, check_upload(path, LIMITS), [Choice(16)], "auto", session, Job(), "x")
    tokens = VideoTokens.load(made.tokens[0])
    assert (tokens.info.fit, tokens.info.tiles) == ("tile", 2)
    assert tokens == models.codec.encode(path, 16, fit="tile")
    assert made.panel == (192, 256)
    video, strip = probe(made.videos[0]), probe(made.strip)
    assert (video.width, video.height, video.audio) == (256, 192, True)
    assert (strip.width, strip.audio) == (512, False)
    html = page.reconstruction_page(made)
    assert f'data-lengths="{tokens.block_tokens.tolist()}"' in html
    assert "summed over 2 tiles" in html
    assert 'viewBox="0 -16 10 16"' in html  # 10 blocks of time, 8 tokens in each tile


def test_frames_of_too_many_tiles_are_refused(models, session, tmp_path):
    path = tmp_path / "panorama.mp4"
    write_video(path, 4, (16, 96))
    upload = check_upload(path, LIMITS)
    with pytest.raises(ValueError, match=r"^panorama.mp4: frames of 96 × 16 pixels need 7 tiles, expected at most 4"):
        reconstruct(models.codec, upload, [Choice(16)], "auto", session, Job(), "x")
    made = reconstruct(models.codec, upload, [Choice(16)], "pad", session, Job(), "x")
    assert made.panel == (128, 768)


@pytest.mark.parametrize(("target", "fewest"), [(10.9, 55), (14.2, 75), (99.0, 80)])
def test_quality_target_takes_the_fewest_tokens_that_reach_it(target, fewest, models, clip, session, monkeypatch):
    def measure(codec, video, tokens, metric, **options):
        """Pretend that every 5 tokens add 1 dB: the PSNR of a random model may fall with more tokens."""
        return tokens.tokens / 5

    monkeypatch.setattr(reconstruction, "measure_quality", measure)
    choice = Choice(budget_range(models.codec)[0], uniform=True, target=target)
    made = reconstruct(models.codec, check_upload(clip, LIMITS), [choice], "crop", session, Job(), "x")
    assert made.reports[0].tokens.tokens == fewest  # a budget is a multiple of 2 tokens per 4 blocks, of 10 blocks
    assert [("below the target of 99 dB" in note) for note in made.notes] == [True] * (target == 99)


def test_a_model_without_a_scorer_has_uniform_lengths(clip, session):
    model = random_model(small_config().model_copy(update={"scorer": None}))
    codec = AdapTok(model, weights_hash(model.state_dict()))
    made = reconstruct(codec, check_upload(clip, LIMITS), [Choice(8)], "pad", session, Job(), "x")
    assert set(made.reports[0].tokens.lengths) == {2}
    assert "no scorer" in made.notes[0]


def test_generated_clips_depend_on_their_seeds(models, session):
    settings = Sampling(temperature=0.8, cfg_scale=1.5)
    two = generate(models.generator, "right", 2, 5, settings, session, Job())
    assert two.seeds == [5, 6]
    one = generate(models.generator, "right", 1, 6, settings, session, Job())
    assert one.lengths.tolist() == two.lengths[1:].tolist()
    assert len(read_video(one.strip)[0]) == 8
    assert "Seed 6" in page.generation_page(one, 8, 2)
    with pytest.raises(ValueError, match="9 clips, expected 1 to 4"):
        generate(models.generator, "right", 9, 0, settings, session, Job())


@pytest.mark.parametrize("work", ["encode", "generate"])
def test_cancelled_jobs_stop_at_the_next_batch(work, models, clip, session):
    job, calls = session.begin("x"), []

    def show(fraction, text):
        calls.append(text)
        session.cancel("x")

    job.show = show
    upload = check_upload(clip, LIMITS)
    works = {
        "encode": lambda: reconstruct(models.codec, upload, [Choice(16)], "crop", session, job, "x"),
        "generate": lambda: generate(models.generator, "left", 1, 0, Sampling(), session, job),
    }
    with pytest.raises(Cancelled):
        works[work]()
    assert len(calls) == 1


def test_one_job_at_a_time_and_no_files_are_left(tmp_path):
    sessions = Sessions(tmp_path)
    session = sessions.get("a")
    folder, job = session.new_folder("x"), session.begin("x")
    with session, pytest.raises(ValueError, match="another job of yours is running"), session:
        pass
    with session:
        pass
    assert folder.exists()
    sessions.close("a")
    with pytest.raises(Cancelled):
        job.check()
    for index in range(MAX_SESSIONS + 3):
        sessions.get(str(index))
    assert len(list(tmp_path.iterdir())) == MAX_SESSIONS
    sessions.close_all()
    assert list(tmp_path.iterdir()) == []


def test_uploads_are_limited(tmp_path, clip):
    upload = check_upload(clip, UploadLimits(seconds=0.5))
    assert (upload.stop, upload.frames, upload.fps) == (0.5, 15, None)
    assert "The first 0.5 seconds are used." in upload.describe()
    assert check_upload(clip, LIMITS).stop is None
    write_video(tmp_path / "fast.mp4", 12, fps=60)
    fast = check_upload(tmp_path / "fast.mp4", LIMITS)
    assert (fast.fps, fast.frames) == (30, 6)
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    for path, limits, expected in [
        (text, LIMITS, r"^notes.mp4: a text file, expected a video file"),
        (tmp_path / "gone.mp4", LIMITS, r"^gone.mp4: no longer on the server"),
        (clip, dataclasses.replace(LIMITS, megabytes=1e-4), r"^my clip.mp4: .* MB, expected at most 0.0001 MB"),
    ]:
        with pytest.raises(ValueError, match=expected):
            check_upload(path, limits)


def test_values_are_escaped(models, session, tmp_path):
    path = tmp_path / "<b>&'.mp4"
    write_video(path, 4)
    made = reconstruct(models.codec, check_upload(path, LIMITS), [Choice(16)], "stretch", session, Job(), "x")
    html = page.reconstruction_page(dataclasses.replace(made, notes=["<i>note</i>"]))
    assert "<i>note" not in html
    assert re.search(r'src="gradio_api/file=[^"<>]+side-by-side.mp4"', html)
    assert "&lt;script" in page.message("<script>", "error")

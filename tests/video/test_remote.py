"""Videos at URLs, from a server in the process of the test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from adaptok.video.reading import read_video
from adaptok.video.sources import open_frames
from tests.helpers.servers import serve
from tests.helpers.videos import write_video


@pytest.fixture
def address(tmp_path):
    with serve(tmp_path) as address:
        yield address


def test_a_url_is_downloaded_if_asked(address, tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    url = f"{address}/a.mp4?token=1#part"
    with open_frames(url, allow_url=True) as source:
        assert len(list((tmp_path / "temporary").iterdir())) == 1
        assert np.array_equal(np.stack(list(source.frames)), read_video(tmp_path / "a.mp4")[0])
    assert not list((tmp_path / "temporary").iterdir())
    with open_frames(f"{address}/moved-to/http", allow_url=True) as source:
        assert source.total == 4
    with pytest.raises(ValueError, match="URLs are opened only if asked; add --allow-url, or allow_url=True"):
        open_frames(url).__enter__()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "missing.mp4: cannot be downloaded .*404.*; check the address and the network"),
        ("page.html", r"http://127\.0\.0\.1:\d+/page\.html: a text file, expected a video file"),
        ("list.m3u8", r"http://.*/list\.m3u8: a playlist, which refers to other files"),
        ("moved-to/file", "moved-to/file: cannot be downloaded"),
        ("moved-to/ftp", r"cannot be downloaded \(redirected to ftp://.*, expected http or https\)"),
    ],
)
def test_what_is_no_video_is_named_by_its_url(address, tmp_path, name, message):
    write_video(tmp_path / "a.mp4", 2)
    (tmp_path / "page.html").write_text("<!doctype html><title>Sign in</title>")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{address}/a.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match=message):
        open_frames(f"{address}/{name}", allow_url=True).__enter__()


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://host/a.mp4", "concat://a.mp4", "rtsp://host/a"])
def test_other_schemes_are_refused(url):
    with pytest.raises(ValueError, match=r"a URL of the scheme '\w+', expected http or https, or the path"):
        open_frames(url, allow_url=True).__enter__()


def test_an_unreachable_server():
    with pytest.raises(ValueError, match="cannot be downloaded"):
        open_frames("http://127.0.0.1:9/a.mp4", allow_url=True).__enter__()


def test_paths_are_no_urls(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        open_frames(Path("https://host/a.mp4"), allow_url=True).__enter__()

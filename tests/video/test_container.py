"""Files from strangers: FFmpeg opens the file that was named, and nothing that its name or its content refers to."""

from __future__ import annotations

import gc
import socket

import pytest

from adaptok.video.container import VideoError
from adaptok.video.reading import probe, read_video
from tests.helpers.videos import write_video

SEGMENTS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
PLAYLISTS = {
    "list.ffconcat": "ffconcat version 1.0\nfile {}\n",
    "list.m3u8": SEGMENTS,
    "film.mp4": "ffconcat version 1.0\nfile '{}'\n",  # the content decides, not the name
    "film.mkv": SEGMENTS,
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_open_no_other_file(tmp_path, name):
    write_video(tmp_path / "secret.mp4", 3)
    for target in ("secret.mp4", tmp_path / "secret.mp4", f"file:{tmp_path / 'secret.mp4'}"):
        (tmp_path / name).write_text(PLAYLISTS[name].format(target))
        with pytest.raises(VideoError, match="a playlist, which refers to other files, expected a video file"):
            probe(tmp_path / name)


def test_playlists_open_no_connection(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        for name, text in PLAYLISTS.items():
            (tmp_path / name).write_text(text.format(address))
            with pytest.raises(VideoError, match="a playlist"):
                probe(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    "name",
    ["concat:a.mp4|b.mp4", "file:a.mp4", "http:a.mp4", "a%d.mp4", "data:a.mp4", "10:20:30.mp4", "-a.mp4"],
)
def test_names_are_names_of_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", 3)
    with pytest.raises(VideoError, match=r"no such file"):
        probe(name)
    (tmp_path / "a.mp4").rename(tmp_path / name)
    assert len(read_video(name)[0]) == 3


def test_urls_need_two_slashes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "http:/host/a.mp4", 2)
    assert len(read_video("./http:/host/a.mp4")[0]) == 2
    assert len(read_video("http:/host/a.mp4")[0]) == 2
    with pytest.raises(VideoError, match="a URL, expected the path"):
        read_video("http://host/a.mp4")


@pytest.mark.parametrize("name", ["notes.txt", "notes.nfo", "notes.mp4", "notes"])
def test_text_is_no_video(tmp_path, name):
    (tmp_path / name).write_text("Dear diary,\n\ttoday I filmed a café.\n" * 40, encoding="utf-8")
    with pytest.raises(VideoError, match="a text file, expected a video file"):
        probe(tmp_path / name)


def test_files_are_closed(tmp_path, recwarn):
    write_video(tmp_path / "a.mp4", 2)
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)))
    read_video(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="not a video file that FFmpeg can read"):
        probe(tmp_path / "b.mp4")
    gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]

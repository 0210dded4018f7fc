"""Lists of files in the formats that datasets are published with."""

from __future__ import annotations

import pytest

from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries, read_manifest


def labels(entries):
    return [(entry.path.name, entry.label) for entry in entries]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "7,a/0.mp4,,3\n8,b/1.mp4,,4\n"),
        ("list.csv", "path,label\na/0.mp4,3\nb/1.mp4,4\n"),
        ("list.csv", "a/0.mp4,3\n\nb/1.mp4,4\n"),
        ("trainlist01.txt", "a/0.mp4 3\nb/1.mp4 4\n"),
    ],
)
def test_lists(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    entries = read_manifest(tmp_path / name)
    assert labels(entries) == [("0.mp4", "3"), ("1.mp4", "4")]
    assert entries[1].path == tmp_path / "b/1.mp4"
    assert read_manifest(tmp_path / name, root="/elsewhere")[1].path.as_posix() == "/elsewhere/b/1.mp4"


@pytest.mark.parametrize("header", ["", "id,path,action,label\n"])
def test_actions_of_official_lists_are_the_labels(tmp_path, header):
    (tmp_path / "list.csv").write_text(header + "7,a/0.mp4,jump,3\n8,b/1.mp4,run,4\n")
    assert labels(read_manifest(tmp_path / "list.csv")) == [("0.mp4", "jump"), ("1.mp4", "run")]


@pytest.mark.parametrize("place", ["lists", "videos"])
def test_numbers_of_ucf101_become_names(tmp_path, place):
    for name in ("lists", "videos"):
        (tmp_path / name).mkdir()
    (tmp_path / place / "classInd.txt").write_text("1 Hammering\n2 HammerThrow\n\n")
    path = tmp_path / "lists" / "trainlist01.txt"
    path.write_text("a/0.avi 2\nb/1.avi 1\nb/2.avi\n")
    entries = read_manifest(path, tmp_path / "videos")
    assert labels(entries) == [("0.avi", "HammerThrow"), ("1.avi", "Hammering"), ("2.avi", None)]
    path.write_text("a/0.avi 3\n")
    with pytest.raises(ValueError, match=r"class 3 is not in .*classInd.txt, which has 2 classes"):
        read_manifest(path, tmp_path / "videos")


def test_paths_may_contain_spaces(tmp_path):
    (tmp_path / "list.txt").write_text("my clip.mp4 7\nno label.mp4\n")
    assert labels(read_manifest(tmp_path / "list.txt")) == [("my clip.mp4", "7"), ("no label.mp4", None)]


def test_folders_give_labels(tmp_path):
    for name in ("top.mp4", "b/1.MP4", "a/x/2.mkv", "a/text.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert labels(find_entries(tmp_path, VIDEO_SUFFIXES)) == [("2.mkv", "x"), ("1.MP4", "b"), ("top.mp4", None)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.json", "", "expected a folder, or a list of files"),
        ("list.csv", "\n", "the list is empty"),
        ("list.csv", "path,label\n,3\n", "entry 1 .* has no path"),
        ("list.parquet", "no table", "not a Parquet file"),
    ],
)
def test_invalid_lists(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / name)

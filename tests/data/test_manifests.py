"""Lists of files in the formats that datasets are published with."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries, read_manifest
from adaptok.data.statistics import collect_statistics


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
    hidden = ("a/.2-abc.mkv", ".partial/3.mp4")  # files that a killed process left
    for name in ("top.mp4", "b/1.MP4", "a/x/2.mkv", "a/text.txt", *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert labels(find_entries(tmp_path, VIDEO_SUFFIXES)) == [("2.mkv", "x"), ("1.MP4", "b"), ("top.mp4", None)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.json", "", "expected a folder, or a list of files"),
        ("list.csv", "\n", "the list is empty"),
        ("list.csv", "path,label\n,3\n", "line 2 .* has no path"),
        ("list.parquet", "no table", "not a Parquet file"),
        ("list.csv", 'path,label\nc0.mp4,"a\nc1.mp4,b\n', "line 2 .* a quote is not closed"),
        ("list.csv", 'c0.mp4,"a\nb"\n', "line 1 .* a quote is not closed"),
        ("list.csv", 'c0.mp4,"a\nc1.mp4,b\n"c2.mp4",c\n', "line 1 .* a quote is not closed"),
        ("list.csv", 'c0.mp4,"a"b\n', "line 1 .* expected after"),
        ("list.csv", f'"{"x" * 131_073}.mp4",a\n', "line 1 .* field larger than field limit"),
        ("list.csv", b"c\xff.mp4\n", "byte 1 is not UTF-8"),
        ("list.txt", b"c\0.mp4 1\n", "holds a NUL character"),
    ],
)
def test_invalid_lists(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / name)


def test_quotes_and_uncommon_characters_in_lists(tmp_path):
    text = 'a\u2028b.mp4,"x, ""y"""\n"c,d.mp4",z\n'
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert labels(read_manifest(tmp_path / "list.csv")) == [("a\u2028b.mp4", 'x, "y"'), ("c,d.mp4", "z")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.mp4", None]}, "row 1 has no path"),
        ({"path": ["a.mp4"], "frames": [0]}, "row 0: frames 0, expected at least 1"),
        ({"path": ["a.mp4"], "frames": ["many"]}, "not a Parquet file of an index"),
        ({"path": [["a.mp4"]]}, "not a Parquet file of an index"),
        ({"file": ["a.mp4"]}, "columns file, expected a column path"),
    ],
)
def test_invalid_indices(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "index.parquet")
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "index.parquet")


def test_lists_of_missing_files_fail_before_any_is_opened(tmp_path):
    (tmp_path / "list.csv").write_text("".join(f"clips/{number}.mp4\n" for number in range(20_000)))
    with pytest.raises(FileNotFoundError, match=r"none of its 20000 files exists, such as .*0\.mp4"):
        list(find_entries(tmp_path / "list.csv", VIDEO_SUFFIXES))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "list.csv").write_text("a.mp4\nb.mp4\n")
    errors = [entry.error for entry in collect_statistics(find_entries(tmp_path / "list.csv", VIDEO_SUFFIXES))]
    assert errors[0].endswith("a.mp4: a pipe, a socket or a device, expected a video file")
    assert errors[1] == "no such file"
    assert not list(find_entries(tmp_path, VIDEO_SUFFIXES))
    for name in ("pipe.csv", "pipe.parquet"):
        with pytest.raises(ValueError, match="expected a folder, or a list of files"):
            list(find_entries(tmp_path / name, VIDEO_SUFFIXES))

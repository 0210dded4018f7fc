"""Parsing of command lines: help, version, repeated flags, and the time until help appears."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from adaptok import __version__
from adaptok.cli.main import main
from adaptok.cli.options import flatten
from adaptok.cli.parser import parse

COMMANDS = [
    "encode",
    "decode",
    "reconstruct",
    "info",
    "tokenize",
    "train",
    "train tokenizer",
    "train scorer",
    "train generator",
    "evaluate",
    "evaluate reconstruction",
    "evaluate generation",
    "evaluate prediction",
    "evaluate files",
    "compare",
    "generate",
    "predict",
    "data",
    "data index",
    "data resize",
    "data synthesize",
    "convert",
    "export",
    "benchmark",
    "benchmark encode",
    "benchmark decode",
    "benchmark allocate",
    "benchmark generate",
    "benchmark train",
]


def output_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = output_of(capsys, *command.split(), "--help")
    assert text == output_of(capsys, "help", *command.split())
    assert f"usage: adaptok {command} " in text
    assert "None}" not in text
    boxes = text[: text.find("Fields of the configuration of a")] if "Fields of the" in text else text
    for flag in re.findall(r"^│ +((?:-\w(?: [A-Z|_]+)?, )?--[\w-]+)", boxes, re.MULTILINE):
        after = boxes[boxes.index(flag) + len(flag) :]
        assert re.search(r"[a-z]{2,}.*[.)]", after[:300], re.DOTALL), flag


def test_overview_lists_the_commands(capsys):
    text = output_of(capsys, "--help")
    assert all(f"• {command}" in text for command in COMMANDS if " " not in command)
    assert output_of(capsys) == text


def test_version(capsys):
    assert output_of(capsys, "--version") == f"adaptok {__version__}\n"


def test_short_flags():
    command = parse(["encode", "in.mp4", "-o", "out.adaptok", "-q", "-v"])
    assert str(command.output) == "out.adaptok"
    assert command.messages.quiet
    assert command.messages.verbose


@pytest.mark.parametrize(
    "flags", ["--budget 12 20.5", "--budget 12,20.5", "--budget 12 --budget 20.5", "--budget=12,20.5"]
)
def test_budgets_by_spaces_commas_or_repetition(flags):
    assert flatten(parse(["reconstruct", "in.mp4", *flags.split()]).lengths.budget) == [12, 20.5]


def test_switches_that_are_on_by_default():
    assert parse(["encode", "in.mp4"]).scores
    assert parse(["encode", "in.mp4", "--scores"]).scores
    assert not parse(["encode", "in.mp4", "--no-scores"]).scores


def test_completion_script(capsys):
    assert "encode" in output_of(capsys, "--tyro-print-completion", "bash")


@pytest.mark.parametrize("words", [["--help"], ["encode", "--help"]])
def test_help_imports_nothing_slow(words):
    """Help must appear at once, so nothing imports torch, numpy or pydantic before it."""
    slow = {"torch", "numpy", "pydantic", "av", "rich", "yaml"} | ({"typeguard"} if words == ["--help"] else set())
    code = (
        "import sys\nfrom adaptok.cli.main import main\n"
        f"try: main({words})\nexcept SystemExit: pass\n"
        f"print(sorted({slow} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_interrupt_while_starting_prints_no_traceback(tmp_path):
    """Ctrl-C at any time after the first import of the program."""
    code = (
        "import signal, sys, adaptok.cli.main as m\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['adaptok', 'info']\n"
        "m.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "adaptok: error: interrupted; no incomplete files are left behind\n"


def test_interrupts_are_not_lost_in_imports_and_destructors():
    code = (
        "import signal, sys, adaptok.cli.main as m\n"
        "class Destroyed:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tyro' and sys.argv[1] == 'info': Destroyed()\n"
        "        if name == 'tyro' and sys.argv[1] == 'help':\n"
        "            try: signal.raise_signal(signal.SIGINT)\n"
        "            except KeyboardInterrupt: raise ImportError('tyro failed to import')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "m.run()"
    )
    for word in ("info", "help"):
        done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True)
        assert done.stderr == "adaptok: error: interrupted; no incomplete files are left behind\n"
        assert done.returncode == 130


def test_other_failures_have_exit_code_1_and_one_line(capsys, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("adaptok.cli.describe.describe", fail)
    with pytest.raises(SystemExit, match="1"):
        main(["info"])
    assert capsys.readouterr().err == (
        "adaptok: error: RuntimeError: out of memory; see the traceback with --verbose or ADAPTOK_TRACEBACK=1\n"
    )
    with pytest.raises(SystemExit, match="1"):
        main(["info", "-v"])
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ADAPTOK_TRACEBACK", "1")
    with pytest.raises(SystemExit, match="1"):
        main(["info"])
    assert "Traceback" in capsys.readouterr().err

"""Examples of the documentation: found in Markdown pages, and run on small inputs.

A page is run from top to bottom in one folder. The names of inputs in the examples, such as clip.mp4 or my/videos,
stand for small files that are made when an example first mentions them. Outputs of earlier examples are replaced.

A comment before a block changes how it is run:
    <!-- not run: REASON -->     the commands are parsed only
    <!-- run with: FLAGS -->     flags that are added to the commands of the block, or replace theirs
"""

from __future__ import annotations

import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from adaptok.cli.main import main
from adaptok.cli.parser import parse
from adaptok.cli.structure import command_fields, find_command
from adaptok.config.training import load_training_config
from tests.helpers.raw_videos import numbered_frames, y4m

ROOT = Path(__file__).parents[2]
DISPLAYED = ("text", "mermaid", "bibtex", "{toctree}", "{eval-rst}")
"""Languages of blocks that are shown, not run."""
NOT_RUN = {
    ("demo",): "it serves until it is stopped; tests/demo opens the page in a browser",
    ("benchmark",): "it takes minutes; tests/benchmark measures small models",
    ("weights", "fetch"): "it needs a network; tests/cli/test_weights.py fetches from a file",
    ("export-onnx",): "it takes half a minute; tests/export does it, and runs the files",
}
FEWER = {
    ("train",): ["--dry-run"],
    ("tokenize",): ["--workers", "1"],
    ("evaluate",): ["--workers", "1", "--count", "2", "--metrics", "psnr"],
    ("data", "resize"): ["--workers", "1"],
    ("data", "synthesize"): ["--clips", "4"],
    ("generate",): ["-n", "1", "--max-tokens", "16"],
    ("predict",): ["--frames", "8", "--max-tokens", "16"],
}
"""Flags that make commands cheap: they replace those of the example."""
LAUNCHER = re.compile(r"^(?:\S+=\S+ )*(?:(?:torchrun|accelerate launch) .*?-m )?(?=adaptok )")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    text: str
    reason: str | None = None
    """Why it is not run."""
    flags: tuple[str, ...] = ()

    @property
    def commands(self) -> list[str]:
        """Commands of a shell block, without comments."""
        lines = re.sub(r"(?:\\|(?<=\|))\n", " ", self.text).splitlines()
        return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, and the commands in its tables as blocks of their own."""
    text = page.read_text(encoding="utf-8")
    found = []
    fence = re.compile(r"(?:^<!-- (not run|run with): (.*?) -->\n)?^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for match in fence.finditer(text):
        marker, note, language, body = match.groups()
        reason = note if marker == "not run" else None
        flags = tuple(shlex.split(note)) if marker == "run with" else ()
        found.append(Block(text[: match.start(3)].count("\n") + 1, language, body, reason, flags))
    for match in re.finditer(r"^\|.*\| (`adaptok .*`) \|.*\|$", text, re.MULTILINE):
        for command in re.findall(r"`(adaptok .+?)`", match[1]):
            found.append(Block(text[: match.start()].count("\n") + 1, "sh", command))
    return sorted(found, key=lambda block: block.line)


class Runner:
    """Runs the examples of one page in the current folder.

    Args:
        inputs: functions that make the inputs of examples at a path, by the names in the examples.
        words: replacements of words, such as ids of the Hugging Face hub.
        flags: replacements of flags and their values, by flag.
        variables: variables of the examples in Python.
    """

    def __init__(
        self,
        inputs: dict[str, Callable[[Path], object]],
        words: dict[str, str],
        flags: dict[str, Sequence[str]],
        variables: dict[str, object],
    ) -> None:
        self.inputs, self.words, self.flags = inputs, words, flags
        self.namespace: dict[str, object] = {"__name__": "example", **variables}

    def run(self, block: Block) -> None:
        """Run a block, or check it if it is not a program."""
        if block.language == "sh":
            for command in block.commands:
                self.run_command(command, block)
        elif block.language == "python":
            self.run_python(block)
        elif block.language == "yaml":
            _check_configuration(block.text)
        elif block.language not in DISPLAYED:
            raise ValueError(f"no way to run a block of {block.language!r}")

    def run_python(self, block: Block) -> None:
        """Run a block of Python. Blocks of a page share their variables."""
        code = compile(block.text, f"line {block.line}", "exec")
        if block.reason is None:
            for name in self.inputs:
                if f'"{name}' in block.text:
                    self.provide(name)
            exec(code, self.namespace)

    def run_command(self, command: str, block: Block) -> None:
        """Run a command of a shell block in this process, or check it if it belongs to another program."""
        source, pipe, reader = command.partition(" '|' ")
        if pipe:
            self.run_pipe(source, reader, block)
            return
        program, *words = shlex.split(LAUNCHER.sub("", command))
        if program == "adaptok":
            self.run_adaptok(words, block)
        elif program == "python":
            script = str(ROOT / words[0])
            assert Path(script).is_file(), script
            if block.reason is None:
                self.run_script(script, words[1:])
        elif program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif program == "pip":
            assert words[0] == "install", command  # tests/docs/test_facts.py checks the extras
        elif program == ".venv/bin/python":
            assert words[:2] == ["-m", "pytest"], command
            assert all((ROOT / word).exists() for word in words if word.startswith("tests/")), command
        else:
            raise ValueError(f"no way to run {program!r}")

    def run_adaptok(self, words: list[str], block: Block) -> None:
        """Run a command of adaptok."""
        names = find_command(words).names
        reason = block.reason or next((why for name, why in NOT_RUN.items() if names[: len(name)] == name), None)
        if reason is not None or "…" in words:
            parse(words)
            return
        for word, before in zip(words, ["", *words], strict=False):
            if before in ("-o", "--output"):
                _remove(Path(word))
            else:
                self.provide(word)
        fewer = next((flags for name, flags in FEWER.items() if names[: len(name)] == name), [])
        words = _replace_flags([self.words.get(word, word) for word in words], self.flags)
        words = _set_flags(words, [*fewer, "--force", *block.flags])
        try:
            main(words)
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"adaptok {shlex.join(words)}: exit code {stop.code}") from None

    def run_pipe(self, source: str, command: str, block: Block) -> None:
        """Run a command of adaptok that reads small frames where the example has those of FFmpeg."""
        assert shlex.split(source)[0] == "ffmpeg", source
        data = y4m(numbered_frames(8)) if "yuv4mpegpipe" in source else numbered_frames(8, 360, 640).tobytes()
        old, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(data))
        try:
            self.run_command(command, block)
        finally:
            sys.stdin = old

    def run_script(self, script: str, words: list[str]) -> None:
        """Run a script of the repository."""
        for word in words:
            self.provide(word)
        old, sys.argv = sys.argv, [script, *words]
        try:
            runpy.run_path(script, run_name="__main__")
        finally:
            sys.argv = old

    def provide(self, name: str) -> None:
        """Make an input, unless it exists."""
        path = Path(name)
        if name in self.inputs and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.inputs[name](path)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _replace_flags(words: list[str], replacements: dict[str, Sequence[str]]) -> list[str]:
    """Replace flags that have one value, together with it."""
    for flag, new in replacements.items():
        if flag in words:
            place = words.index(flag)
            words = [*words[:place], *new, *words[place + 2 :]]
    return words


def _set_flags(words: list[str], flags: Sequence[str]) -> list[str]:
    """Append those flags, with their values, that the command has. They replace the same flags of the command."""
    place = find_command(words)
    known = {name for field in command_fields(place.node) for name in field.flag.names}
    for start in [index for index, word in enumerate(flags) if word.startswith("-")]:
        if flags[start] in known:
            _, stop = _extent(flags, start)
            if flags[start] in words:
                first, last = _extent(words, words.index(flags[start]))
                words = [*words[:first], *words[last:]]
            words = [*words, *flags[start:stop]]
    return words


def _extent(words: Sequence[str], start: int) -> tuple[int, int]:
    """Return where a flag and its values begin and end."""
    stop = next((index for index in range(start + 1, len(words)) if words[index].startswith("-")), len(words))
    return start, stop


def _check_configuration(text: str) -> None:
    """Check that a block of YAML holds fields of a configuration that are valid together."""
    load_training_config("tiny", "tokenizer", dict(_flatten(yaml.safe_load(text))))


def _flatten(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for key, value in values.items():
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs

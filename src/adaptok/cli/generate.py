"""`adaptok generate --label NAME … -n N --out DIR`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from adaptok.cli.common import Common, progress
from adaptok.evaluation.report.contact_sheet import save_sheet
from adaptok.generation import Generator, Sampling
from adaptok.utils.files import replacing
from adaptok.video.pixels import clip_to_frames
from adaptok.video.reading import read_video
from adaptok.video.writing import VideoWriter

SETTINGS_FILE, SHEET_FILE = "generate.json", "contact-sheet.png"
SHEET_CLIPS = 24
"""Clips that the contact sheet shows."""


@dataclass(kw_only=True)
class SamplingFlags(Common):
    """Flags of every command that samples a generator."""

    generator: str | None = None
    """Generator folder or hub id (owner/name), of our layout or the official one; the one in the box if not given."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely entry."""
    top_k: int | None = None
    """Draw from the k most likely entries only."""
    top_p: float | None = None
    """Draw from the most likely entries that together have this probability only."""
    tokens: int | None = None
    """Most tokens of a clip; as many as it may have if not given."""
    least: int = 0
    """Fewest tokens of a block."""
    most: int | None = None
    """Most tokens of a block."""
    compile: bool = False
    """Compile the step of sampling, and record it as CUDA graphs on a GPU: worth its minute for many clips."""

    def load_generator(self) -> Generator:
        """The generator and tokenizer that the flags ask for."""
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}, expected 1 or more")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}, expected 0 or more")
        return Generator.from_pretrained(
            self.generator, codec=self.model, device=self.device, dtype=self.dtype, compile=self.compile
        )

    def settings(self, **more: Any) -> Sampling:
        """How entries are drawn."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            budget=self.tokens,
            least=self.least,
            most=self.most,
            **more,
        )


@dataclass(kw_only=True)
class Generate(SamplingFlags):
    """Sample new videos of classes, with a contact sheet. A command that was stopped goes on where it was."""

    label: tuple[str, ...] = ()
    """Classes, by name or number, taken in turn; all classes if not given."""
    number: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 8
    """Clips in all."""
    out: Path
    """Folder to write: NUMBER-LABEL.mp4 for each clip, contact-sheet.png, and generate.json with the settings."""
    cfg_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    cfg_interval: tuple[int, int] | None = None
    """First guided entry of a clip, and the one to stop at; all if not given."""
    fps: float = 8.0
    """Frames per second of the videos."""

    def run(self) -> None:
        if self.number < 1 or not 0 < self.fps <= 1000:
            raise ValueError(f"-n {self.number} --fps {self.fps:g}, expected 1 clip or more, and 0 to 1000 a second")
        generator = self.load_generator()
        settings = self.settings(cfg_scale=self.cfg_scale, cfg_interval=self.cfg_interval)
        settings.check(generator.config)
        generator.check_codec()
        names = [self.label[i % len(self.label)] for i in range(self.number)] if self.label else self._all(generator)
        classes = generator.classes(names)
        self._claim(generator, names)
        paths = [self.out / f"{i:05d}-{_plain(name)}.mp4" for i, name in enumerate(names)]
        missing = [i for i, path in enumerate(paths) if not path.exists()]
        seeds = [int(np.random.SeedSequence((self.seed, i)).generate_state(1, np.uint64)[0]) for i in missing]
        with progress("generating", self.number, "clips", self.quiet) as advance:
            advance(self.number - len(missing))
            if missing:
                for index, samples in generator.iter_sample(
                    classes[missing], settings=settings, seeds=seeds, batch_size=self.batch_size
                ):
                    with VideoWriter(paths[missing[index]], self.fps) as writer:
                        writer.write(clip_to_frames(generator.decode(samples)[0].cpu()))
                    advance(1)
        shown = paths[:SHEET_CLIPS]
        save_sheet(
            self.out / SHEET_FILE, [(name, read_video(path)[0]) for name, path in zip(names, shown, strict=False)]
        )
        document = {"out": str(self.out), "clips": [str(path) for path in paths], "sampled": len(missing)}
        self.result(
            {**document, "sheet": str(self.out / SHEET_FILE)},
            f"{self.out}: {len(paths)} clips ({len(missing)} sampled now), {self.out / SHEET_FILE}",
        )

    def _all(self, generator: Generator) -> list[str]:
        c = generator.config
        labels = c.labels or tuple(map(str, range(c.classes)))
        if not labels:
            raise ValueError("this generator predicts frames and has no classes; use 'adaptok predict'")
        return [labels[i % len(labels)] for i in range(self.number)]

    def _claim(self, generator: Generator, names: list[str]) -> None:
        """The folder belongs to these settings; one with others is an error."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / SETTINGS_FILE
        skipped = ("out", "json", "force", "quiet", "batch_size", "number", "label", "device", "compile")
        flags = {name: value for name, value in asdict(self).items() if name not in skipped}
        settings = json.loads(json.dumps({**flags, "generator_name": generator.config.name, "labels": self.label}))
        if path.exists() and not self.force:
            found = json.loads(path.read_text(encoding="utf-8"))
            if different := [name for name in settings if found.get(name) != settings[name]]:
                name = different[0]
                raise ValueError(
                    f"{self.out}: holds clips of another {name} ({found.get(name)!r}, not {settings[name]!r});"
                    " choose another folder, or write them anew with --force"
                )
        if self.force:
            for old in self.out.glob("[0-9]" * 5 + "-*.mp4"):
                old.unlink()
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _plain(name: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)

"""`adaptok generate [--label NAME …] [-n N] [-o FOLDER]`."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from adaptok.cli.options import Messages, Switch, group, option
from adaptok.cli.output import output_folder, progress, refuse_streams, show
from adaptok.cli.sampling import SamplingComputation, SamplingOptions

if TYPE_CHECKING:
    from adaptok.generation import Generator

SETTINGS_FILE, SHEET_FILE = "generate.json", "contact-sheet.png"
_WAIT, _INTERVAL = 300.0, 0.5
"""Seconds to wait for the first process of torchrun, and between two looks."""
SHEET_CLIPS = 24
"""Maximum number of clips on the contact sheet."""


@dataclass(kw_only=True)
class Generate:
    """Generate videos of given classes, and a contact sheet of them."""

    notes: ClassVar[str] = (
        "An interrupted run resumes when it is started again with the same arguments. The processes of torchrun share"
        " the clips, which are the same for any number of processes."
    )

    label: Annotated[tuple[str, ...], option("NAME [NAME …]")] = ()
    """Classes to generate in turn, by name or number. The default is all classes of the generator."""
    number: Annotated[int, option("N", "-n")] = 8
    """Number of clips. The default is 8."""
    output: Annotated[Path, option("FOLDER", "-o")] = Path("samples")
    """Folder to write: one video per clip (NUMBER-LABEL.mp4), contact-sheet.png, and the settings in generate.json. The
    default is samples, in the current folder."""
    fps: float = 8.0
    """Frames per second of the videos. The default suits the bundled generator."""
    force: Switch = False
    """Generate the clips again if the folder holds clips of other settings."""
    cfg_scale: float = 1.0
    """Scale of classifier-free guidance. 1 disables it; larger values follow the class more closely."""
    cfg_interval: Annotated[tuple[int, int] | None, option("FIRST END")] = None
    """Positions in the token sequence of a clip between which guidance is applied. It is applied everywhere by
    default."""
    sampling: Annotated[SamplingOptions, group("sampling")] = field(default_factory=SamplingOptions)
    computation: Annotated[SamplingComputation, group("computation")] = field(default_factory=SamplingComputation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        refuse_streams(self.output)
        if self.number < 1:
            raise ValueError(f"--number {self.number}, expected 1 clip or more")
        if not 0 < self.fps <= 1000:
            raise ValueError(f"--fps {self.fps:g}, expected more than 0 and at most 1000 frames per second")
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if rank == 0:
            output_folder(self.output)
        generator = self.computation.load_generator(self.sampling.seed, self.computation.weights)
        settings = self.sampling.settings(cfg_scale=self.cfg_scale, cfg_interval=self.cfg_interval)
        settings.check(generator.config)
        generator.check_codec()
        labels = self.label or _all_labels(generator)
        names = [labels[i % len(labels)] for i in range(self.number)]
        classes = generator.classes(names)
        paths = [self.output / f"{i:05d}-{_file_name(name)}.mp4" for i, name in enumerate(names)]
        if rank == 0:
            self._claim_folder(generator, paths)
        else:
            self._await_folder(generator)
        missing = [i for i, path in enumerate(paths) if i % world == rank and not path.exists()]
        with progress(self.messages, "generating", self.number, "clips") as advance:
            advance(len(paths[rank::world]) - len(missing))
            self._write_clips(generator, settings, classes, {i: paths[i] for i in missing}, advance)
            if rank:
                return  # a process of torchrun that is not the first
            self._await_clips(paths, world, advance)
        self._report(names, paths, len(missing))

    def _await_folder(self, generator: Generator) -> None:
        """Wait until the first process of torchrun has written the settings into the folder."""
        until = time.monotonic() + _WAIT
        settings = json.loads(json.dumps(self._settings(generator)))
        path = self.output / SETTINGS_FILE
        while not path.exists() or json.loads(path.read_text(encoding="utf-8")) != settings:
            if time.monotonic() > until:
                raise ValueError(f"{path}: the first process has not written these settings within {_WAIT:g} seconds")
            time.sleep(_INTERVAL)

    def _await_clips(self, paths: Sequence[Path], world: int, advance: Any) -> None:
        """Wait until the other processes of torchrun, which stops all if one fails, have written their clips."""
        waiting = [path for i, path in enumerate(paths) if i % world]
        while waiting:
            left = [path for path in waiting if not path.exists()]
            advance(len(waiting) - len(left))
            if waiting := left:
                time.sleep(_INTERVAL)

    def _write_clips(
        self, generator: Generator, settings: Any, classes: Any, paths: dict[int, Path], advance: Any
    ) -> None:
        """Generate the clips whose files are missing. The seed of a clip depends on its number alone."""
        from adaptok.generation.sampling import clip_seed
        from adaptok.video.pixels import clip_to_frames
        from adaptok.video.writing import VideoWriter

        if not paths:
            return
        missing = list(paths)
        seeds = [clip_seed(self.sampling.seed, i) for i in missing]
        for index, samples in generator.iter_sample(
            classes[missing], settings=settings, seeds=seeds, batch_size=self.computation.batch_size
        ):
            with VideoWriter(paths[missing[index]], self.fps) as writer:
                writer.write(clip_to_frames(generator.decode(samples)[0].cpu()))
            advance(1)

    def _report(self, names: Sequence[str], paths: Sequence[Path], sampled: int) -> None:
        from adaptok.evaluation.report.contact_sheet import save_sheet
        from adaptok.video.reading import read_video

        sheet = self.output / SHEET_FILE
        shown = zip(names, paths[:SHEET_CLIPS], strict=False)
        save_sheet(sheet, [(name, read_video(path)[0]) for name, path in shown])
        document = {"out": str(self.output), "clips": [str(path) for path in paths], "sampled": sampled}
        text = f"{self.output}: {len(paths)} clips ({sampled} of them generated now), {sheet}"
        show(self.messages, {**document, "sheet": str(sheet)}, text)

    def _claim_folder(self, generator: Generator, paths: Sequence[Path]) -> None:
        """Write the settings into the folder, or check that it holds clips of the same settings."""
        from adaptok.utils.files import replacing

        path = self.output / SETTINGS_FILE
        settings = json.loads(json.dumps(self._settings(generator)))
        present = _read_settings(path, self.force)
        if present and not self.force:
            present.setdefault("classes", settings["classes"])  # earlier versions wrote neither
            present.setdefault("weights", "float")
            for name, value in settings.items():
                if present.get(name) != value:
                    raise ValueError(
                        f"{self.output}: holds clips of another {name} ({present.get(name)!r}, not {value!r});"
                        " choose another folder, or generate them again with --force"
                    )
        if self.force:
            _remove_clips(self.output, present, generator, {path.name for path in paths})
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _settings(self, generator: Generator) -> dict[str, Any]:
        """Everything that determines what the clips show."""
        computation = self.computation
        return {
            **asdict(self.sampling),
            "cfg_scale": self.cfg_scale,
            "cfg_interval": self.cfg_interval,
            "fps": self.fps,
            "generator": computation.generator,
            "model": computation.model,
            "dtype": computation.dtype,
            "weights": computation.weights,
            "generator_name": generator.config.name,
            "labels": self.label,
            "classes": _all_labels(generator),
        }


def _read_settings(path: Path, force: bool) -> dict[str, Any]:
    """Read the settings of the clips in a folder; empty if there are none.

    Args:
        path: The file with the settings.
        force: Whether a damaged file counts as none.

    Raises:
        ValueError: The file is damaged, or another program's.
    """
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return {_OLD_SETTINGS.get(name, name): value for name, value in settings.items()}
    except (ValueError, AttributeError, RecursionError):
        if force:
            return {}
        raise ValueError(f"{path}: damaged, expected the settings of generated clips; choose another folder") from None


def _remove_clips(folder: Path, settings: dict[str, Any], generator: Generator, outputs: Collection[str]) -> None:
    """Remove the clips that were generated with other settings, and those of the same names as `outputs`.

    The former have names that the settings give. All other files stay.
    """
    same = settings.get("generator_name") == generator.config.name
    labels = settings.get("labels") or settings.get("classes") or (_all_labels(generator) if same else ())
    names = {_file_name(str(label)) for label in labels}
    for path in folder.glob("[0-9]" * 5 + "-*.mp4"):
        if (path.stem.partition("-")[2] in names or path.name in outputs) and path.is_file():
            path.unlink()


_OLD_SETTINGS = {"tokens": "budget", "least": "min_tokens", "most": "max_tokens"}
"""Names in `generate.json` of earlier versions."""


def _all_labels(generator: Generator) -> tuple[str, ...]:
    labels = generator.config.labels or tuple(map(str, range(generator.config.classes)))
    if not labels:
        raise ValueError("this generator predicts frames and has no classes; use 'adaptok predict'")
    return tuple(labels)


def _file_name(label: str) -> str:
    """A label with the characters that file names should not have replaced."""
    return re.sub(r"[^\w.-]+", "_", label)

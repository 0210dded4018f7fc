"""`adaptok benchmark encode|decode|allocate|generate|train`: speed and memory on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro

from adaptok.benchmark.allocation import measure_allocation
from adaptok.benchmark.codec import measure_decode, measure_encode
from adaptok.benchmark.generation import measure_generation
from adaptok.benchmark.page import table, update_page
from adaptok.benchmark.timing import Measurement
from adaptok.codec.codec import AdapTok
from adaptok.config.model import base
from adaptok.evaluation.report.build import command_line
from adaptok.evaluation.report.page import columns
from adaptok.models.model import Model, weights_hash
from adaptok.utils.devices import pick_device, pick_dtype
from adaptok.utils.system import describe_machine, versions

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(kw_only=True)
class Kind:
    """Flags of every kind of benchmark. A further kind is a subclass with `name` and `measure`, listed below."""

    name: ClassVar[str]

    repeats: int = 3
    """How often each piece of work is timed."""
    page: Path | None = None
    """Markdown page whose section for this kind is written anew, such as docs/performance.md."""
    json: bool = False
    """Print one JSON object on stdout."""
    quiet: bool = False
    """No messages but errors."""

    def measure(self) -> list[Measurement]:
        """Everything measured."""
        raise NotImplementedError

    def machine(self) -> torch.device:
        """What it runs on."""
        return torch.device("cpu")

    def run(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"--repeats {self.repeats}, expected 1 or more")
        found = self.measure()
        machine = describe_machine(self.machine())
        if self.page is not None:
            update_page(self.page, self.name, command_line(), machine, versions(), found)
        if self.json:
            results = [each.document() for each in found]
            print(json.dumps({"kind": self.name, "machine": machine, "versions": versions(), "results": results}))
        elif not self.quiet:
            print(", ".join(f"{value}" for value in machine.values()))
            print("\n".join(columns(table(found))))


@dataclass(kw_only=True)
class Coding(Kind):
    """Flags of the kinds that run a model."""

    model: str | None = None
    """Model folder or hub id; the model in the box if neither this nor --preset is given."""
    preset: Literal["base"] | None = None
    """The full-size model, with random weights."""
    clips: int = 4
    """Clips computed at once."""
    dtype: tuple[Dtype, ...] = ("float32",)
    """Precisions; with several, each is measured in a process of its own, so that its memory is its own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def machine(self) -> torch.device:
        return pick_device(self.device)

    def measure(self) -> list[Measurement]:
        if self.clips < 1 or not self.dtype or (self.model is not None and self.preset is not None):
            raise ValueError(
                f"--clips {self.clips}, expected 1 or more; --dtype names one or more; --model and --preset exclude"
                " each other"
            )
        if len(self.dtype) > 1:
            return [each for dtype in self.dtype for each in self._apart(dtype)]
        with torch.inference_mode():
            return self.measure_codec(self._load())

    def measure_codec(self, codec: AdapTok) -> list[Measurement]:
        raise NotImplementedError

    def _load(self) -> AdapTok:
        [dtype] = self.dtype
        if self.preset is None:
            return AdapTok.from_pretrained(self.model, device=self.device, dtype=dtype)
        torch.manual_seed(0)
        model = Model(base())
        return AdapTok(model.to(self.machine(), pick_dtype(dtype)), weights_hash(model.state_dict()))

    def _apart(self, dtype: Dtype) -> list[Measurement]:
        """At one precision, in another process."""
        flags = ["--clips", self.clips, "--repeats", self.repeats, "--device", self.device, "--dtype", dtype, "--json"]
        for name, value in (("--model", self.model), ("--preset", self.preset)):
            flags += [] if value is None else [name, value]
        return in_own_process(self.name, flags)


def in_own_process(kind: str, flags: Sequence[object]) -> list[Measurement]:
    """What `adaptok benchmark KIND FLAGS --json` measures."""
    command = [sys.executable, "-m", "adaptok", "benchmark", kind, *map(str, flags)]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise ValueError("a measurement in a process of its own failed; what it said is above")
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return [Measurement(**{k: v for k, v in result.items() if k != "share"}) for result in results]


@dataclass(kw_only=True)
class Encode(Coding):
    """Encode clips: the encoder alone, and with the scorer and an allocation."""

    name: ClassVar[str] = "encode"

    def measure_codec(self, codec: AdapTok) -> list[Measurement]:
        return measure_encode(codec, self.clips, self.repeats)


@dataclass(kw_only=True)
class Decode(Coding):
    """Decode clips at half of the tokens."""

    name: ClassVar[str] = "decode"

    def measure_codec(self, codec: AdapTok) -> list[Measurement]:
        return measure_decode(codec, self.clips, self.repeats)


@dataclass(kw_only=True)
class Allocate(Kind):
    """Choose lengths: exact allocation of many blocks, and a stream. Uses the processor alone."""

    name: ClassVar[str] = "allocate"

    blocks: tuple[int, ...] = (256, 2_000, 10_000, 1_000_000)
    """That share a budget."""

    def measure(self) -> list[Measurement]:
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"--blocks {self.blocks}, expected 1 or more each")
        return measure_allocation(self.blocks, self.repeats)


@dataclass(kw_only=True)
class Generate(Kind):
    """Sample a generator of an official size, with random weights, beside what the bandwidth of memory allows."""

    name: ClassVar[str] = "generate"

    size: Literal["S", "B", "L", "LP", "XL", "XXL", "XXXL"] = "LP"
    """The official sizes."""
    clips: tuple[int, ...] = (1, 8)
    """At a time."""
    tokens: tuple[int, ...] = (256, 1024)
    """Of a clip."""
    dtype: Dtype = "bfloat16"
    """Precision of weights and computation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    compile: bool = False
    """Compile the step, and record it as CUDA graphs on a GPU."""

    def machine(self) -> torch.device:
        return pick_device(self.device)

    def measure(self) -> list[Measurement]:
        if min(self.clips, default=0) < 1 or min(self.tokens, default=0) < 1:
            raise ValueError(f"--clips {self.clips} --tokens {self.tokens}, expected 1 or more each")
        return measure_generation(
            self.size,
            self.clips,
            self.tokens,
            pick_dtype(self.dtype),
            self.machine(),
            self.repeats,
            compile=self.compile,
        )


@dataclass(kw_only=True)
class Train(Kind):
    """Training steps of the tokenizer, each preset in a process of its own. `--repeats` is the number of steps."""

    name: ClassVar[str] = "train"

    preset: tuple[Literal["tiny", "small", "base"], ...] = ("tiny",)
    """Recipes."""
    batch: int | None = None
    """Clips of a step; 16 for tiny, and the largest within --memory for the others, if not given."""
    memory: float = 20.0
    """GB that a process may take."""
    warm: int = 3
    """Steps before those that are measured."""
    data: Path | None = None
    """Folder of videos; some are drawn if not given."""
    checkpointing: bool = False
    """With activation checkpointing."""

    def machine(self) -> torch.device:
        return pick_device("auto")

    def measure(self) -> list[Measurement]:
        if not self.preset or min(self.batch or 1, self.warm + 1) < 1:
            raise ValueError("--preset names one recipe or more, --batch is 1 or more, --warm 0 or more")
        try:
            import accelerate  # noqa: F401
        except ModuleNotFoundError:
            raise ImportError("training needs accelerate; install it with: pip install 'adaptok[train]'") from None
        from adaptok.benchmark.training import largest_batch, measure_training, some_videos

        with some_videos(self.data) as data:
            if len(self.preset) == 1 and self.batch is not None:
                [preset] = self.preset
                options = {"checkpointing": self.checkpointing, "warm": self.warm}
                return [measure_training(preset, self.batch, self.repeats, data, **options)]  # type: ignore[arg-type]
            found = []
            for preset in self.preset:
                tiny = 16 if preset == "tiny" else None
                batch = self.batch or tiny or largest_batch(preset, self.memory, data, self.checkpointing)
                flags = ["--preset", preset, "--batch", batch, "--repeats", self.repeats, "--warm", self.warm]
                flags += ["--data", str(data), "--json", *["--checkpointing"] * self.checkpointing]
                found += in_own_process(self.name, flags)
            return found


@dataclass(kw_only=True)
class Benchmark:
    """Measure speed, memory and the share of this machine's peak."""

    kind: (
        Annotated[Encode, tyro.conf.subcommand("encode", prefix_name=False)]
        | Annotated[Decode, tyro.conf.subcommand("decode", prefix_name=False)]
        | Annotated[Allocate, tyro.conf.subcommand("allocate", prefix_name=False)]
        | Annotated[Generate, tyro.conf.subcommand("generate", prefix_name=False)]
        | Annotated[Train, tyro.conf.subcommand("train", prefix_name=False)]
    )

    def run(self) -> None:
        self.kind.run()

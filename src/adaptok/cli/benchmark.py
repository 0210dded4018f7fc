"""`adaptok benchmark encode`, `decode`, `allocate`, `generate` and `train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import subcommand

from adaptok.cli.options import MODEL_NAME, Messages, Switch, Threads, group, option
from adaptok.cli.output import columns, output_path, show
from adaptok.config.choices import DType, WeightFormat

if TYPE_CHECKING:
    import torch

    from adaptok.benchmark.timing import Measurement
    from adaptok.codec.codec import AdapTok
    from adaptok.models.generator import GeneratorModel


@dataclass(kw_only=True)
class Timing(Threads):
    """Options of all benchmarks. A further benchmark is a subclass with `name` and `measure`, listed in `Benchmark`."""

    name: ClassVar[str]

    repeats: int = 3
    """Number of times that each piece of work is timed. More repeats give steadier numbers."""
    page: Annotated[Path | None, option("PAGE")] = None
    """Markdown page (.md) whose section on this benchmark is replaced, such as docs/performance.md. None is written by
    default."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def measure(self) -> list[Measurement]:
        """Run the benchmark."""
        raise NotImplementedError

    def torch_device(self) -> torch.device:
        """The device that is measured."""
        from adaptok.utils.devices import pick_device

        return pick_device("cpu")

    def run(self) -> None:
        from adaptok.benchmark.page import table, update_page
        from adaptok.utils.system import describe_machine, versions

        if self.repeats < 1:
            raise ValueError(f"--repeats {self.repeats}, expected 1 or more")
        if self.page is not None:
            output_path(self.page, force=True, suffixes=(".md",))
        results = self.measure()
        machine = describe_machine(self.torch_device())
        if self.page is not None:
            update_page(self.page, self.name, machine, results)
        documents = [result.document() for result in results]
        document = {"kind": self.name, "machine": machine, "versions": versions(), "results": documents}
        text = [", ".join(f"{value}" for value in machine.values()), *columns(table(results))]
        show(self.messages, document, "\n".join(text))


@dataclass(kw_only=True)
class CodecTiming(Timing):
    """Options of the benchmarks of a tokenizer."""

    model: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Model folder, or id of a model on the Hugging Face hub with its branch, tag or commit (owner/name@revision). The
    bundled model is the default."""
    preset: Annotated[Literal["base"] | None, option("base")] = None
    """base measures the full-size architecture with random weights instead of a model."""
    clips: int = 4
    """Number of clips computed at once."""
    dtype: Annotated[tuple[DType, ...], option("NAME [NAME …]")] = ("float32",)
    """Floating-point formats to measure: float32 (the default), bfloat16 or float16. Several are measured in separate
    processes, so that the memory of each is its own."""
    device: Annotated[str, option("NAME")] = "auto"
    """Device to measure: cpu, cuda, cuda:N or mps. The default, auto, takes the first GPU if there is one."""

    def torch_device(self) -> torch.device:
        from adaptok.utils.devices import pick_device

        return pick_device(self.device)

    def measure(self) -> list[Measurement]:
        import torch

        if self.clips < 1:
            raise ValueError(f"--clips {self.clips}, expected 1 or more")
        if not self.dtype:
            raise ValueError("--dtype: expected one format or more")
        if self.model is not None and self.preset is not None:
            raise ValueError("--model and --preset exclude each other; give one of them")
        if len(self.dtype) > 1:
            return [result for dtype in self.dtype for result in self._measure_apart(dtype)]
        with torch.inference_mode():
            return self.measure_codec(self._load())

    def measure_codec(self, codec: AdapTok) -> list[Measurement]:
        """Run the benchmark on a model."""
        raise NotImplementedError

    def _load(self) -> AdapTok:
        import torch

        from adaptok.codec.codec import AdapTok
        from adaptok.config.model import base
        from adaptok.models.model import Model, weights_hash
        from adaptok.utils.devices import pick_dtype

        [dtype] = self.dtype
        if self.preset is None:
            return AdapTok.from_pretrained(self.model, device=self.device, dtype=dtype)
        torch.manual_seed(0)
        model = Model(base())
        return AdapTok(model.to(self.torch_device(), pick_dtype(dtype)), weights_hash(model.state_dict()))

    def _measure_apart(self, dtype: DType) -> list[Measurement]:
        """Measure one format in another process."""
        from adaptok.benchmark.timing import measure_in_process

        flags = ["--clips", self.clips, "--repeats", self.repeats, "--device", self.device, "--dtype", dtype]
        for name, value in (("--model", self.model), ("--preset", self.preset)):
            flags += [] if value is None else [name, value]
        return measure_in_process(self.name, flags)


@dataclass(kw_only=True)
class Encode(CodecTiming):
    """Measure encoding of clips: the encoder alone, and with the scorer and the allocation of lengths."""

    name: ClassVar[str] = "encode"

    def measure_codec(self, codec: AdapTok) -> list[Measurement]:
        from adaptok.benchmark.codec import measure_encode

        return measure_encode(codec, self.clips, self.repeats)


@dataclass(kw_only=True)
class Decode(CodecTiming):
    """Measure decoding of clips with half of the tokens."""

    name: ClassVar[str] = "decode"

    def measure_codec(self, codec: AdapTok) -> list[Measurement]:
        from adaptok.benchmark.codec import measure_decode

        return measure_decode(codec, self.clips, self.repeats)


@dataclass(kw_only=True)
class Allocate(Timing):
    """Measure the allocation of lengths, for many blocks at once and for a stream. It runs on the CPU."""

    name: ClassVar[str] = "allocate"

    blocks: Annotated[tuple[int, ...], option("N [N …]")] = (256, 2_000, 10_000, 1_000_000)
    """Numbers of blocks that share a budget. The defaults, 256, 2000, 10000 and 1000000, range from a short clip to
    days of video."""

    def measure(self) -> list[Measurement]:
        from adaptok.benchmark.allocation import measure_allocation

        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"--blocks {self.blocks}, expected 1 or more each")
        return measure_allocation(self.blocks, self.repeats)


@dataclass(kw_only=True)
class Generate(Timing):
    """Measure a generator of an official size with random weights, or another one, against the limit of the memory
    bandwidth."""

    name: ClassVar[str] = "generate"

    size: Literal["S", "B", "L", "LP", "XL", "XXL", "XXXL"] | None = None
    """Official size of the generator. The default is LP."""
    generator: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Generator to measure instead of random weights: a folder, a Hugging Face hub id (owner/name@revision), or
    adaptok-tiny-generator for the bundled one."""
    clips: Annotated[tuple[int, ...], option("N [N …]")] = (1, 8)
    """Batch sizes to measure. The defaults are 1 and 8."""
    tokens: Annotated[tuple[int, ...], option("N [N …]")] = (256, 1024)
    """Tokens per clip to measure. The defaults are 256 and 1024."""
    dtype: DType = "bfloat16"
    """Floating-point format of weights and computation. The default is the format that generators are used in."""
    weights: Annotated[tuple[WeightFormat, ...], option("float|int8 [float|int8]")] = ("float",)
    """How the weights of linear layers are stored: float (the default) or int8, for which the change of the
    cross-entropy is measured, too. Both are measured in separate processes, so that the memory of each is its own."""
    device: Annotated[str, option("NAME")] = "auto"
    """Device to measure: cpu, cuda, cuda:N or mps. The default, auto, takes the first GPU if there is one."""
    compile: Switch = False
    """Compile the decode step, and record it as CUDA graphs on a GPU."""

    def torch_device(self) -> torch.device:
        from adaptok.utils.devices import pick_device

        return pick_device(self.device)

    def measure(self) -> list[Measurement]:
        from adaptok.benchmark.generation import measure_generation

        if self.size is not None and self.generator is not None:
            raise ValueError("--size and --generator exclude each other; give one of them")
        if not self.weights:
            raise ValueError("--weights: expected float, int8 or both")
        if min(self.clips, default=0) < 1 or min(self.tokens, default=0) < 1:
            raise ValueError(f"--clips {self.clips} --tokens {self.tokens}, expected 1 or more each")
        if len(self.weights) > 1:
            return [result for weights in self.weights for result in self._measure_apart(weights)]
        model, name = self._load()
        [weights] = self.weights
        return measure_generation(
            model, name, self.clips, self.tokens, self.repeats, weights=weights, compile=self.compile
        )

    def _load(self) -> tuple[GeneratorModel, str]:
        """Load the generator, or make one with random weights, and return it with its name."""
        from adaptok.benchmark.generation import random_generator
        from adaptok.checkpoints.hub import HubOptions, local_folder
        from adaptok.checkpoints.model_folder import read_generator
        from adaptok.generation.generator import BUNDLED
        from adaptok.utils.devices import pick_dtype

        dtype, device = pick_dtype(self.dtype), self.torch_device()
        if self.generator is None:
            size = self.size or "LP"
            return random_generator(size, dtype, device), size
        name = None if self.generator == BUNDLED else self.generator
        with local_folder(name, BUNDLED, HubOptions()) as folder:
            model = read_generator(folder, dtype).to(device).eval()
        return model, model.config.name

    def _measure_apart(self, weights: WeightFormat) -> list[Measurement]:
        """Measure one format of weights in another process."""
        from adaptok.benchmark.timing import measure_in_process

        flags = ["--clips", *self.clips, "--tokens", *self.tokens, "--dtype", self.dtype, "--weights", weights]
        flags += ["--device", self.device, "--repeats", self.repeats, *["--compile"] * self.compile]
        for name, value in (("--size", self.size), ("--generator", self.generator)):
            flags += [] if value is None else [name, value]
        return measure_in_process(self.name, flags)


@dataclass(kw_only=True)
class Train(Timing):
    """Measure training steps of the tokenizer; --repeats is the number of steps."""

    name: ClassVar[str] = "train"

    preset: Annotated[tuple[Literal["tiny", "small", "base"], ...], option("NAME [NAME …]")] = ("tiny",)
    """Presets to measure: tiny (the default), small or base. Each runs in a process of its own."""
    batch_size: Annotated[int | None, option("N")] = None
    """Clips per step. The default is 16 for tiny, and the largest that fits --memory for small and base."""
    memory: Annotated[float, option("GB")] = 20.0
    """Memory in GB that a process may use when the batch size is chosen. The default is 20."""
    warmup_steps: int = 3
    """Steps before those that are timed, in which memory is allocated and caches fill."""
    data: Annotated[Path | None, option("FOLDER")] = None
    """Folder of videos to train on. The default is a few synthetic videos."""
    checkpointing: Switch = False
    """Recompute activations in the backward pass, which needs less memory and more time."""
    dtype: Annotated[DType | None, option("NAME")] = None
    """float32, bfloat16 or float16, instead of the precision of the preset (bfloat16). Processors without instructions
    for it train faster in float32."""

    def torch_device(self) -> torch.device:
        from adaptok.utils.devices import pick_device

        return pick_device("auto")

    def measure(self) -> list[Measurement]:
        from adaptok.utils.extras import require

        self._check()
        require("accelerate", extra="train", purpose="training")
        from adaptok.benchmark.timing import measure_in_process
        from adaptok.benchmark.training import largest_batch, measure_training, some_videos

        with some_videos(self.data) as data:
            if len(self.preset) == 1 and self.batch_size is not None:
                [preset] = self.preset
                measurement = measure_training(
                    preset,
                    self.batch_size,
                    self.repeats,
                    data,
                    checkpointing=self.checkpointing,
                    warm=self.warmup_steps,
                    precision=self.dtype,
                )
                return [measurement]
            results = []
            same: list[object] = ["--data", data, *["--checkpointing"] * self.checkpointing]
            same += [] if self.dtype is None else ["--dtype", self.dtype]
            for preset in self.preset:
                default = 16 if preset == "tiny" else None
                size = self.batch_size or default or largest_batch(preset, self.memory, same)
                flags: list[object] = ["--preset", preset, "--batch-size", size, "--repeats", self.repeats]
                results += measure_in_process(self.name, [*flags, "--warmup-steps", self.warmup_steps, *same])
            return results

    def _check(self) -> None:
        if not self.preset:
            raise ValueError("--preset: expected one preset or more")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}, expected 1 or more")
        if self.warmup_steps < 0:
            raise ValueError(f"--warmup-steps {self.warmup_steps}, expected 0 or more")


@dataclass(kw_only=True)
class Benchmark:
    """Measure speed and memory on this machine, and what fraction of its peak is reached."""

    command: (
        Annotated[Encode, subcommand("encode")]
        | Annotated[Decode, subcommand("decode")]
        | Annotated[Allocate, subcommand("allocate")]
        | Annotated[Generate, subcommand("generate")]
        | Annotated[Train, subcommand("train")]
    )

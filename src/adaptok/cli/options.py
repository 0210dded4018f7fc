"""Options that several commands have, in the groups in which `--help` shows them.

Nothing here imports torch, numpy or pydantic: `adaptok --help` reads these classes and should answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from adaptok.cli.errors import UsageError
from adaptok.config.choices import DEFAULT_EFFORT, DType, Effort, Fit, FitChoice, Scope

if TYPE_CHECKING:
    from adaptok.codec.codec import AdapTok
    from adaptok.video.limits import Limits


def option(metavar: str, *aliases: str) -> object:
    """Placeholder of a flag's value in `--help`, and short names of the flag. Its description states the default."""
    return arg(metavar=metavar, aliases=aliases or None, help_behavior_hint="")


def group(title: str) -> object:
    """Title of a group of options in `--help`; tyro appends the word "options"."""
    return arg(name=title)


Switch = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]
"""A flag that is off by default."""
MODEL_NAME = "model name"
"""Mark of options that name a model: a folder, a bundled model, or a hub id, which must state a revision."""
Input = Annotated[Positional[Path], option("INPUT")]
"""A required path."""


def _parse_numbers(values: list[str]) -> tuple[float, ...]:
    numbers = []
    for value in ",".join(values).split(","):
        try:
            numbers.append(float(value))
        except ValueError:
            raise UsageError(f"{value!r} is not a number", value) from None
    return tuple(numbers)


_NUMBERS = PrimitiveConstructorSpec(
    nargs="*",
    metavar="N",
    instance_from_str=_parse_numbers,
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: [f"{number:g}" for number in value],
)
Budgets = Annotated[
    UseAppendAction[tuple[Annotated[tuple[float, ...], _NUMBERS], ...]],
    arg(metavar="N [N …]", help_behavior_hint=""),
]
"""Numbers separated by spaces or commas; the flag may be repeated."""


@dataclass(kw_only=True)
class Messages:
    """Form and amount of the output."""

    json: Switch = False
    """Print the result as one JSON object on standard output. Messages go to standard error."""
    quiet: Annotated[bool, FlagCreatePairsOff, arg(aliases=["-q"], help_behavior_hint="")] = False
    """Print no progress bars, messages or results for people, only errors and warnings."""
    verbose: Annotated[bool, FlagCreatePairsOff, arg(aliases=["-v"], help_behavior_hint="")] = False
    """Log the details of the work, and print the traceback of an error."""


@dataclass(kw_only=True)
class Threads:
    """How many threads compute."""

    threads: Annotated[int | None, option("N")] = None
    """Number of CPU threads, which worker processes share. The default is that of OMP_NUM_THREADS, or else the number
    of CPUs that this process may use and other programs leave idle, but at least half of those it may use."""


@dataclass(kw_only=True)
class Device(Threads):
    """Where and how precisely to compute."""

    device: Annotated[str, option("NAME")] = "auto"
    """Device to compute on: cpu, cuda, cuda:N or mps. The default, auto, takes the first GPU if there is one."""
    dtype: DType = "float32"
    """Floating-point format of weights and computation. float32 reproduces published numbers; bfloat16 and float16 are
    faster on most GPUs."""


@dataclass(kw_only=True)
class Computation(Device):
    """Which model to use, and where to compute."""

    model: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Model folder, or id of a model on the Hugging Face hub with its branch, tag or commit (owner/name@revision). The
    bundled model is the default."""
    batch_size: int = 4
    """Number of clips computed at once. Larger batches use more memory and are faster on a GPU."""

    def check(self) -> None:
        """Raise ValueError if an option is out of range."""
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}, expected 1 or more")

    def load(self) -> AdapTok:
        """Load the model."""
        import torch

        from adaptok.codec.codec import AdapTok

        self.check()
        torch.manual_seed(0)
        return AdapTok.from_pretrained(self.model, device=self.device, dtype=self.dtype)


@dataclass(kw_only=True)
class InputLimits:
    """Largest frames and longest videos, which hostile or damaged files exaggerate."""

    max_pixels: Annotated[int, option("N")] = 2**26
    """Largest number of pixels of a frame. The default, 67108864, is that of 8192x8192 pixels, and admits 8K video."""
    max_duration: Annotated[float, option("SECONDS")] = 86400.0
    """Longest video, or part of one, in seconds. The default is a day; inf is no limit."""

    @property
    def limits(self) -> Limits:
        """The limits. Raise ValueError if one is not positive."""
        from adaptok.video.limits import Limits

        return Limits(self.max_pixels, self.max_duration)


@dataclass(kw_only=True)
class FrameSampling:
    """How frames are taken from a video."""

    fit: Fit = "crop"
    """How frames are fitted to the square of the model. crop takes the central square, as generators and published
    protocols do, and drops the rest; pad adds black bars, stretch changes the aspect ratio."""
    fps: Annotated[float | None, option("N")] = None
    """Frames per second to sample the video at. The frame rate of the video is the default."""


@dataclass(kw_only=True)
class Excerpt(FrameSampling):
    """Which frames are taken from the video."""

    start: Annotated[float, option("SECONDS")] = 0.0
    """Time in seconds at which to start. The default is the beginning of the video."""
    stop: Annotated[float | None, option("SECONDS")] = None
    """Time in seconds at which to stop. The default is the end of the video."""


@dataclass(kw_only=True)
class WholeFrames(Excerpt):
    """Which frames are taken from the video, and how they are covered."""

    fit: FitChoice = "auto"  # type: ignore[assignment]
    """How frames are fitted to the square of the model. tile covers the whole frame with overlapping squares, each with
    tokens of its own; crop takes the central square and drops the rest, pad adds black bars, stretch changes the aspect
    ratio. The default, auto, is tile unless the frame is square."""
    short_side: Annotated[int | None, option("PIXELS")] = None
    """Shorter side that frames are resized to before they are cut into tiles. The default is the size of the model,
    128 pixels for the bundled one. Twice as many pixels need four times as many tiles and tokens."""
    tile_overlap: Annotated[int | None, option("PIXELS")] = None
    """Smallest overlap of neighbouring tiles, which are blended there. The default is an eighth of a tile."""
    window_overlap: Annotated[int, option("FRAMES")] = 0
    """Number of frames that each clip shares with the next, up to half of a clip. They are cross-faded, which smooths
    the transition and needs more tokens. The default is 0."""


@dataclass(kw_only=True)
class Lengths:
    """How many tokens are kept, and in which blocks."""

    budget: Annotated[float | None, option("N")] = None
    """Tokens per clip of 16 frames, on average; each tile of a frame has clips of its own. All tokens are kept if
    neither a budget nor a target is given."""
    target: Annotated[float | None, option("X")] = None
    """Keep the fewest tokens whose predicted distortion stays below this value, instead of a budget."""
    scope: Scope = "video"
    """Which blocks share a budget: all blocks of the video, the blocks of one clip, the same block of a batch of clips,
    or the past of a live stream."""
    uniform: Switch = False
    """Keep the same number of tokens in every block, whatever the scores say. Useful for comparison."""
    effort: Effort = DEFAULT_EFFORT
    """How much is computed to choose lengths for a budget, with the scopes video and clip: 0 scores all blocks once, 1
    scores them again at the lengths that they would get, 2 also measures them at a few lengths near those, and 3 then
    at every length. Models whose scorer has the target block ignore it."""


@dataclass(kw_only=True)
class QualityLengths(Lengths):
    """How many tokens are kept, and in which blocks."""

    target_psnr: Annotated[float | None, option("DB")] = None
    """Keep the fewest tokens whose reconstruction has this PSNR in dB, over the whole video. The video is decoded and
    measured at several budgets to find them."""
    target_lpips: Annotated[float | None, option("X")] = None
    """Keep the fewest tokens whose reconstruction has this LPIPS (VGG), averaged over frames: 0 for equal frames, about
    0.7 for unrelated ones. The video is decoded and measured at several budgets to find them."""
    lpips_weights: Annotated[Path | None, option("FILE")] = None
    """Weights of --target-lpips: torchvision's vgg16-397923af.pth, or a safetensors file, as for 'adaptok evaluate'. By
    default, the file in the cache is used, and downloaded if it is missing."""

    @property
    def seeks_quality(self) -> bool:
        """Whether the tokens are chosen by a measured quality."""
        return self.target_psnr is not None or self.target_lpips is not None


@dataclass(kw_only=True)
class LengthsForBudgets(QualityLengths):
    """How many tokens are kept, and in which blocks."""

    budget: Budgets = ()  # type: ignore[assignment]
    """Tokens per clip of 16 frames, on average; each tile of a frame has clips of its own. Several budgets are compared
    with each other: separate them by spaces or commas, or repeat the flag. All tokens are kept if neither a budget nor
    a target is given."""


@dataclass(kw_only=True)
class ModelOutput:
    """Options of commands that write a model folder."""

    output: Annotated[Path | None, option("FOLDER", "-o")] = None
    """Model folder to write; the same as the argument DST."""
    dtype: DType = "float32"
    """Floating-point format of the stored weights. Formats shorter than float32 round the weights, which changes the
    hash that ties tokens to their model."""
    force: Switch = False
    """Overwrite an existing model."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)


def flatten(budgets: tuple[tuple[float, ...], ...]) -> list[float]:
    """Budgets of all occurrences of the flag."""
    return [budget for occurrence in budgets for budget in occurrence]


def excerpt_arguments(frames: Excerpt, batch_size: int, limits: Limits) -> dict[str, Any]:
    """Arguments of `AdapTok.encode` and `compare` for the excerpt of a video."""
    excerpt = {"start": frames.start, "stop": frames.stop, "fps": frames.fps}
    return {"batch_size": batch_size, **excerpt, "limits": limits}


def fit_arguments(frames: WholeFrames) -> dict[str, Any]:
    """Arguments of `AdapTok.encode` for the way in which frames are covered."""
    return {
        "fit": frames.fit,
        "short_side": frames.short_side,
        "tile_overlap": frames.tile_overlap,
        "window_overlap": frames.window_overlap,
    }

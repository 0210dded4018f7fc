"""Draw the figures of docs/how-it-works.md from the sample clip and the bundled model.

python docs/figures/draw.py [FOLDER]

Every figure shows results of the model itself; nothing is drawn by hand. It takes less than a minute on a CPU.
"""

from __future__ import annotations

import argparse
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adaptok import AdapTok, allocate
from adaptok.models.dense import DenseDecoder, DenseEncoder
from adaptok.utils.files import replacing
from adaptok.video.sources import open_frames

CLIPS = 3
BUDGET = 256
BLOCK_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red")


class Run:
    """The sample clip, and its tokens with all lengths and with the lengths of a budget."""

    def __init__(self) -> None:
        self.codec = AdapTok.from_pretrained(device="cpu")
        c = self.codec.config.tokenizer
        with as_file(files("adaptok") / "assets" / "walk.mp4") as path, open_frames(path) as source:
            frames = np.stack(list(islice(source.frames, CLIPS * c.frames)))
        side = min(frames.shape[1:3])
        top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        self.frames = frames[:, top : top + side, left : left + side]
        self.whole = self.codec.encode(self.frames)
        self.tokens = self.codec.encode(self.frames, budget=BUDGET)

    @property
    def scores(self) -> NDArray[np.float32]:
        """Predicted distortions `[blocks, L]`."""
        assert self.tokens.scores is not None
        return self.tokens.scores

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Candidate lengths `[L]`."""
        return (np.arange(self.scores.shape[1]) + 1) * self.codec.length_step


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    run = Run()
    for draw in (draw_ordered_tokens, draw_lengths, draw_attention, draw_allocation):
        name = draw.__name__.removeprefix("draw_").replace("_", "-")
        with replacing(folder / f"{name}.png") as path:
            draw(run).savefig(path, format="png")


def draw_ordered_tokens(run: Run) -> Figure:
    """Draw frames of the first clip from more and more of its first tokens."""
    shown = (0, 5, 10, 15)
    rows = [("original", run.frames)]
    for length in (16, 48, 96, 192):
        decoded = run.codec.decode(run.whole.shorten(np.full_like(run.whole.lengths, length)))
        clip = slice(0, run.codec.config.tokenizer.frames)
        rows.append((f"{length} tokens\n{_psnr(run.frames[clip], decoded[clip]):.1f} dB", decoded))
    figure = Figure(figsize=(8, 10), dpi=70, layout="constrained")
    axes = figure.subplots(len(rows), len(shown))
    for row, (label, frames) in zip(axes, rows, strict=True):
        for ax, index in zip(row, shown, strict=True):
            _show(ax, frames[index])
        row[0].set_ylabel(label)
    for ax, index in zip(axes[0], shown, strict=True):
        ax.set_title(f"frame {index}", fontsize="medium")
    return figure


def _psnr(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((original.astype(float) - decoded) ** 2)))


def draw_lengths(run: Run) -> Figure:
    """Draw the token ids that every block keeps, below the block's first frame."""
    c = run.codec.config.tokenizer
    blocks = len(run.tokens.lengths)
    figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
    axes = figure.subplot_mosaic(
        [[f"frame {index}" for index in range(blocks)], ["tokens"] * blocks], height_ratios=(1, 4)
    )
    for index in range(blocks):
        _show(axes[f"frame {index}"], run.frames[index * c.temporal_patch_size])
    ids = run.tokens.padded(fill=-1)
    ax = axes["tokens"]
    image = ax.imshow(
        np.ma.masked_less(ids, 0).T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        vmax=run.tokens.info.codebook_size - 1,
    )
    for index, length in enumerate(run.tokens.lengths):
        ax.annotate(str(length), (index, length), ha="center", va="top", xytext=(0, -2), textcoords="offset points")
    for edge in range(c.blocks, blocks, c.blocks):
        ax.axvline(edge - 0.5, color="black", linewidth=1)
    ax.set(xlabel="block (lines separate clips)", ylabel="token", xticks=range(blocks), ylim=(c.latents, -0.5))
    figure.colorbar(image, label="token id", shrink=0.8)
    return figure


def draw_attention(run: Run) -> Figure:
    """Draw which rows of the first clip attend to which, in the encoder and in the decoder."""
    tokenizer = run.codec.model.tokenizer
    c = tokenizer.config
    lengths = run.tokens.lengths[: c.blocks]
    figure = Figure(figsize=(11, 6.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    every = np.full(c.blocks, c.latents)
    patches = np.full(c.blocks, c.patches)
    _draw_mask(left, DenseEncoder(tokenizer).mask, [("patches", patches, patches), ("tokens", every, every)])
    _draw_mask(right, DenseDecoder(tokenizer).mask, [("tokens", lengths, every), ("patches", patches, patches)])
    left.set_title("encoder")
    right.set_title(f"decoder, blocks of {', '.join(map(str, lengths))} tokens")
    return figure


def _draw_mask(ax: Axes, mask: torch.Tensor, parts: list[tuple[str, NDArray[np.int64], NDArray[np.int64]]]) -> None:
    """Draw a mask with its rows sorted by block.

    Args:
        ax: axes to draw on.
        mask: bool `[N, N]`: the keys that each query attends to.
        parts: the parts of the rows in their order in the mask: name, kept rows of each block, and all rows of each.
    """
    places, kinds, ticks, labels = [], [], [], []
    offsets = np.cumsum([0, *(int(rows.sum()) for _, _, rows in parts)])
    for block in range(len(parts[0][1])):
        for kind, (name, kept, rows) in enumerate(parts):
            first = int(offsets[kind]) + int(rows[:block].sum())
            ticks.append(len(places) + kept[block] / 2)
            labels.append(f"{name} {block}")
            places += range(first, first + int(kept[block]))
            kinds += [1 if name == "patches" else 2] * int(kept[block])
    seen = mask[places][:, places].numpy()
    ax.imshow(seen * np.array(kinds), cmap=ListedColormap(["white", "tab:blue", "tab:orange"]), interpolation="nearest")
    ax.set_xticks(ticks, labels, rotation=90)
    ax.set_yticks(ticks, labels)
    ax.set(xlabel="is attended to", ylabel="attends")


def draw_allocation(run: Run) -> Figure:
    """Draw the predicted curves of one clip with the chosen lengths, and the effect of the allocation."""
    scores, lengths, step = run.scores, run.tokens.lengths, run.codec.length_step
    lmbda = allocate(scores, int(lengths.sum()), length_step=step).lmbda
    figure = Figure(figsize=(11, 4.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for block, color in enumerate(BLOCK_COLORS):
        length, score = lengths[block], scores[block, lengths[block] // step - 1]
        left.plot(run.candidates, scores[block], color=color, label=f"block {block}: {length} tokens")
        around = np.array([-40, 40])
        left.plot(length + around, score - lmbda * around, color="black", linewidth=1, linestyle="dotted")
        left.plot(length, score, "o", color=color)
    title = f"slope −λ = {-lmbda:.2g} (dotted)"
    left.set(xlabel="tokens of the block", ylabel="predicted distortion, relative", title=title)
    left.legend()
    budgets = run.candidates
    adaptive = [allocate(scores, budget * len(scores), length_step=step).distortion / len(scores) for budget in budgets]
    right.plot(budgets * run.codec.config.tokenizer.blocks, scores.mean(0), label="uniform lengths", color="tab:gray")
    right.plot(budgets * run.codec.config.tokenizer.blocks, adaptive, label="adaptive lengths", color="tab:purple")
    right.set(
        xlabel="tokens per clip",
        ylabel="mean predicted distortion, relative",
        title=f"{len(scores)} blocks of {CLIPS} clips",
    )
    right.legend()
    return figure


def _show(ax: Axes, frame: NDArray[np.uint8]) -> None:
    ax.imshow(frame)
    ax.set_xticks([])
    ax.set_yticks([])


if __name__ == "__main__":
    main()

"""Train a cumulative scorer on targets that `scorer_targets.py` has measured.

python experiments/bundled_model/train_scorer.py CONFIG.yaml TARGETS OUT --initial MODEL [--data DIR ...] [--epochs 200]

CONFIG describes the scorer, the optimizer and the loss; it is the one that the targets were measured for. The scorer
starts from the mean curve of each block (`scorer.curve`), measured on the targets, and learns how clips deviate from
it. Its head starts at zero. OUT is the model folder of the averaged weights, with a table of λ for streams, measured on
a few training clips; `OUT.jsonl` records the loss and the errors on files that are held out. With `--minutes`, training
ends in time, whatever the epochs.

The loss is the squared error of logarithms, where the mean error of a curve counts `level_weight` times as much.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from scorer_targets import load_scorer_config
from torch import Tensor

from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.config.model import ScorerConfig
from adaptok.models.model import Model
from adaptok.models.scorer import Scorer
from adaptok.models.spectrum_scorer import SpectrumScorer
from adaptok.training.averaging import update_average
from adaptok.training.clip_data import open_clip_data
from adaptok.training.optim import build_optimizers, layer_weights
from adaptok.training.stages import LAMBDA_CLIPS, add_lambdas


class Targets:
    """Measured clips, in memory: one dictionary for each file, whose clips share their lengths."""

    def __init__(self, files: list[Path], model: Model) -> None:
        self.model = model
        self.files = [load_file(path) for path in files]
        if isinstance(model.scorer, SpectrumScorer):
            self.files = [{k: v for k, v in file.items() if k not in ("encoded", "ids")} for file in self.files]

    def joined(self, indices: Sequence[int], name: str) -> Tensor:
        """The values of the clips of some files, `[B, ...]`, where a value may be shared by the clips of a file."""
        files = [self.files[i] for i in indices]
        shared = name in ("lengths", "columns")
        return torch.cat(
            [f[name][None].expand(len(f["distortions"]), *f[name].shape) if shared else f[name] for f in files]
        )

    def logs(self, index: int) -> Tensor:
        """Logarithms of distortions `[B, G, n]`."""
        return self.files[index]["distortions"].clamp(min=1e-8).log()


def mean_curve(targets: Targets, levels: int, degree: int = 4) -> tuple[tuple[tuple[float, ...], ...], float, float]:
    """Fit the mean logarithm of distortions of each block by a polynomial in the logarithm of the length.

    Curves of clips have levels of their own, which are fitted too.

    Returns:
        Normalized curve `[G, L]`, and the mean and the standard deviation of logarithms.
    """
    logs = torch.cat([targets.logs(i) for i in range(len(targets.files))])
    mean, std = logs.mean(), logs.std()
    columns = torch.cat([f["columns"][None].expand(len(f["distortions"]), -1, -1) for f in targets.files])
    grid = torch.arange(1, levels + 1).double().log()
    basis = torch.stack([grid**power for power in range(1, degree + 1)], 1)  # [L, degree]
    curve = []
    for block in range(logs.shape[1]):
        x, y = basis[columns[:, block].long()], logs[:, block].double()
        weights = torch.linalg.lstsq(
            (x - x.mean(1, keepdim=True)).flatten(0, 1), (y - y.mean(1, keepdim=True)).flatten()
        )
        shape = basis @ weights.solution
        offset = (y - x @ weights.solution).mean()
        curve.append(tuple(round(float(v), 4) for v in (shape + offset - mean) / std))
    return tuple(curve), float(mean), float(std)


def errors(model: Model, targets: Targets, indices: Sequence[int], lookahead: bool) -> Tensor:
    """Errors of normalized scores `[B, G, n]` of the clips in some files. A scorer that reads the spectrum may look
    ahead."""
    assert model.scorer is not None
    columns = targets.joined(indices, "columns").long()
    measured = model.scorer.normalize(targets.joined(indices, "distortions"))
    if isinstance(model.scorer, SpectrumScorer):  # it reads neither latents nor the length of the scored block
        spectrum = targets.joined(indices, "spectrum")
        scores = model.scorer(spectrum, spectrum, targets.joined(indices, "lengths"), lookahead=lookahead)
    else:
        scores = torch.cat([_scores_of_latents(model, targets.files[index]) for index in indices])
    return scores.gather(2, columns) - measured


def _scores_of_latents(model: Model, file: dict[str, Tensor]) -> Tensor:
    """Scores `[B, G, L]` of each block, given all of its own latents and the chosen lengths of those before it."""
    assert model.scorer is not None
    with torch.no_grad():
        encoded, inputs = file["encoded"].float(), model.tokenizer.lookup(file["ids"].long())
    lengths, latents, scores = file["lengths"].tolist(), model.config.tokenizer.latents, []
    for block in range(model.config.tokenizer.blocks):
        known = [[*lengths[:block], latents]] * len(encoded)
        scores.append(model.scorer(encoded[:, : block + 1], inputs[:, : block + 1], known)[:, block])
    return torch.stack(scores, 1)


def loss_of(error: Tensor, level_weight: float) -> Tensor:
    level = error.mean(2, keepdim=True)
    return level_weight * level.square().mean() + (error - level).square().mean()


@torch.no_grad()
def validate(model: Model, targets: Targets) -> dict[str, float]:
    """Mean absolute errors of logarithms: of the level of curves, and of their shape, with and without lookahead."""
    assert model.scorer is not None
    values = {}
    for prefix, lookahead in (("", True), ("causal_", False)):
        error = errors(model, targets, range(len(targets.files)), lookahead) * model.scorer.config.std
        level = error.mean(2, keepdim=True)
        values[f"{prefix}level_error"] = level.abs().mean().item()
        values[f"{prefix}shape_error"] = (error - level).abs().mean().item()
    return values


def start(initial: Path, targets: list[Path], config: ScorerConfig) -> Model:
    """The tokenizer of the initial model, with a scorer that predicts the mean curve."""
    source = read_folder(initial).build()
    levels = source.config.tokenizer.latents // config.length_step
    curve, mean, std = mean_curve(Targets(targets, source), levels)
    update = {"curve": curve, "mean": round(mean, 6), "std": round(std, 6), "lambdas": ()}
    model = Model(source.config.model_copy(update={"scorer": config.model_copy(update=update)}))
    model.tokenizer.load_state_dict(source.tokenizer.state_dict())
    assert isinstance(model.scorer, Scorer | SpectrumScorer)
    torch.nn.init.zeros_(model.scorer.head[-1].get_parameter("weight"))
    torch.nn.init.zeros_(model.scorer.head[-1].get_parameter("bias"))
    model.tokenizer.requires_grad_(False)
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration of a scorer run")
    parser.add_argument("targets", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--initial", type=Path, required=True, help="model folder with the tokenizer")
    parser.add_argument("--data", nargs="+", help="folders to measure λ on, instead of data.train")
    parser.add_argument("--batch-files", type=int, default=64, help="files whose clips make a batch")
    parser.add_argument("--epochs", type=float, default=200)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--held-out", type=int, default=1, help="files to validate on")
    options = parser.parse_args(arguments)
    config = load_scorer_config(options.config, options.data)
    optimizer_config, scorer_config = config.optimizer, config.model.scorer
    assert scorer_config is not None
    files = sorted(options.targets.glob("[0-9]*.safetensors"))
    held_out, files = files[: options.held_out], files[options.held_out :]
    batch_files = min(options.batch_files, len(files))
    if not files:
        parser.error(f"{options.targets}: {len(held_out)} files, expected more than are held out ({options.held_out})")
    torch.manual_seed(config.seed)
    model = start(options.initial, files, scorer_config)
    training, validation = Targets(files, model), Targets(held_out, model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizers = list(build_optimizers(optimizer_config, parameters, layer_weights=layer_weights(model)).values())
    average = {name: p.detach().clone() for name, p in parameters.items()}
    steps, rng, started = (
        math.ceil(len(files) / batch_files * options.epochs),
        torch.Generator().manual_seed(0),
        time.time(),
    )
    record = options.out.with_suffix(".jsonl").open("a")

    def log(**values: float) -> None:
        print(json.dumps(values), file=record, flush=True)
        print(json.dumps(values), flush=True)

    log(step=0, files=len(files), **validate(model, validation))
    step, order = 0, torch.empty(0, dtype=torch.long)
    while step < steps:
        progress = max(step / steps, (time.time() - started) / 60 / options.minutes)
        if progress >= 1:
            break
        if len(order) < batch_files:
            order = torch.randperm(len(files), generator=rng)
        chosen, order = order[:batch_files].tolist(), order[batch_files:]
        final = optimizer_config.final_lr_ratio
        factor = min(1, (step + 1) / max(1, optimizer_config.warmup_steps))
        factor *= final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        lookahead = bool(torch.randint(2, (), generator=rng))
        loss = loss_of(errors(model, training, chosen, lookahead), config.level_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        update_average(average, parameters, min(config.ema_decay, step / (step + 10)))
        if step % 100 == 0 or step == steps:
            log(
                step=step,
                loss=loss.item(),
                minutes=(time.time() - started) / 60,
                **validate(averaged(model, average), validation),
            )
    train = open_clip_data(config).train
    clips = torch.stack([train[i] for i in range(LAMBDA_CLIPS)])
    write_folder(add_lambdas(averaged(model, average), clips), options.out, torch.float16)


def averaged(model: Model, average: dict[str, Tensor]) -> Model:
    """A copy of the model with averaged weights."""
    copy = Model(model.config)
    copy.load_state_dict({**model.state_dict(), **average})
    return copy.eval()


if __name__ == "__main__":
    main()

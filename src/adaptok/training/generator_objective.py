"""What a generator minimises: the mean cross-entropy, in nats, of the entries of rows after their conditions.

Legend: `N` rows that are read, `M` entries that are asked for, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.models.digits import DigitHead
from adaptok.models.generator import GeneratorModel
from adaptok.training.objectives import Draw, Outcome
from adaptok.training.token_data import PackedRows, Row, Rows, pack

ACCURACY_ENTRIES = 4096
"""Entries that the accuracy is measured on: it needs the probability of every id."""
_CHUNK = 256


class GeneratorObjective(nn.Module):
    """Cross-entropy of every id and end mark, given what stands before it."""

    def __init__(self, model: GeneratorModel) -> None:
        super().__init__()
        self.model = model

    def trained(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that this stage changes: all."""
        return self.model.named_parameters()

    def forward(self, clips: PackedRows, draw: Draw, step: int, progress: float, maker: Any = None) -> Outcome:
        """The loss of packed rows; the rest is as for the tokenizer, and not used."""
        mean = self.losses(self.outputs(clips), clips.targets).mean()
        metrics = {"loss": mean.detach(), "entries": mean.new_tensor(float(len(clips.targets)))}
        return Outcome(mean * clips.weight, metrics)

    def outputs(self, rows: PackedRows) -> Tensor:
        """`[M, D]`: what the output layer makes the entries of."""
        model = self.model
        x = model.tokens(rows.ids)
        if rows.places is not None:
            assert model.classes is not None
            x = x.index_copy(0, rows.places, model.classes(rows.classes))
        x = model.run(x, rows.lengths, rows.positions)
        return model.norm(x if rows.asked is None else x[rows.asked])

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """`[M]`: cross-entropies in nats."""
        head = self.model.output
        if isinstance(head, DigitHead):
            return -head.log_likelihood(outputs, targets)
        return F.cross_entropy(head(outputs).float(), targets, reduction="none")


@torch.inference_mode()
def validate_generator(model: GeneratorModel, rows: Rows, batch: int) -> dict[str, float]:
    """Loss in nats, bits per entry, and the share of entries that are the likeliest ones, over all rows."""
    objective, device = GeneratorObjective(model).eval(), model.device
    total, outputs, targets = 0.0, [], []
    for start in range(0, len(rows), batch):
        part: list[Row] = [rows[index] for index in range(start, min(start + batch, len(rows)))]
        packed = pack(part, model.config).to(device)
        out = objective.outputs(packed)
        total += float(objective.losses(out, packed.targets).double().sum())
        outputs.append(out)
        targets.append(packed.targets)
    all_outputs, all_targets = torch.cat(outputs), torch.cat(targets)
    stride = math.ceil(len(all_targets) / ACCURACY_ENTRIES)
    right = likeliest(model, all_outputs[::stride]) == all_targets[::stride]
    loss = total / len(all_targets)
    return {
        "validation_loss": loss,
        "validation_bits_per_token": loss / math.log(2),
        "validation_accuracy": right.double().mean().item(),
    }


@torch.inference_mode()
def likeliest(model: GeneratorModel, outputs: Tensor) -> Tensor:
    """int64 `[M]`: the likeliest entry for each of `outputs [M, D]`."""
    return torch.cat([model.output(part).argmax(-1) for part in outputs.split(_CHUNK)])

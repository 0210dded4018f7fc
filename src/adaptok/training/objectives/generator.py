"""Objective of the generator: mean cross-entropy, in nats, of the entries of sequences after their conditions.

Legend: `N` packed positions that the model reads, `M` entries that it predicts, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.models.digits import DigitHead
from adaptok.models.generator import GeneratorModel
from adaptok.training.objectives.base import LossOutput, Objective, StepContext
from adaptok.training.sequences import PackedSequences

CHUNK = 256
"""Entries whose logits are computed at once, because those of a whole batch may not fit into memory."""


class GeneratorObjective(Objective):
    """Cross-entropy of every id and end-of-block token, given everything before it."""

    def __init__(self, model: GeneratorModel) -> None:
        super().__init__()
        self.model = model

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield all parameters of the generator."""
        return self.model.named_parameters()

    def forward(self, sequences: PackedSequences, context: StepContext) -> LossOutput:
        """Compute the loss of packed sequences, weighted by their number of entries."""
        mean = self.losses(self.hidden_states(sequences), sequences.targets).mean()
        entries = mean.new_tensor(float(len(sequences.targets)))
        return LossOutput(mean * sequences.weight, {"entries": entries})

    def hidden_states(self, sequences: PackedSequences) -> Tensor:
        """Compute the inputs `[M, D]` of the output layer."""
        model = self.model
        x = model.tokens(sequences.ids)  # [N, D]
        if sequences.class_positions is not None:
            assert model.classes is not None
            x = x.index_copy(0, sequences.class_positions, model.classes(sequences.classes))
        x = model.run(x, sequences.lengths, sequences.positions)
        return model.norm(x if sequences.predict_at is None else x[sequences.predict_at])

    def losses(self, hidden_states: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropies `[M]` in nats."""
        head = self.model.output
        if isinstance(head, DigitHead):
            return -head.log_likelihood(hidden_states, targets)
        return F.cross_entropy(head(hidden_states).float(), targets, reduction="none")


@torch.inference_mode()
def most_likely(model: GeneratorModel, hidden_states: Tensor) -> Tensor:
    """Return the most likely entry, int64 `[M]`, for each of `hidden_states [M, D]`."""
    return torch.cat([model.output(chunk).argmax(-1) for chunk in hidden_states.split(CHUNK)])

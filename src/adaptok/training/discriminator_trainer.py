"""Optimization of the discriminator beside that of the tokenizer."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from adaptok.training.adversarial import AdversarialLoss


class DiscriminatorTrainer:
    """Discriminator loss with its optimizer.

    Args:
        loss: adversarial loss with a new discriminator.
        accelerator: moves and wraps them for the processes of the run.
        start_step: step from which the adversarial loss counts and the discriminator is trained.
    """

    def __init__(self, loss: AdversarialLoss, accelerator: Accelerator, start_step: int) -> None:
        self.loss, self.start_step = loss.to(accelerator.device), start_step
        config = loss.config
        self.optimizer = torch.optim.AdamW(loss.parameters(), lr=config.lr, betas=config.betas, weight_decay=0.0)
        self.prepared, self._prepared_optimizer = accelerator.prepare(self.loss, self.optimizer)

    def active(self, step: int) -> bool:
        """Return whether the adversarial loss counts at a step."""
        return step >= self.start_step

    def updates(self, step: int) -> bool:
        """Return whether the discriminator is updated at a step."""
        return self.active(step) and step % self.loss.config.update_interval == 0

    def optimizer_step(self) -> None:
        """Update the discriminator from its accumulated gradients."""
        self._prepared_optimizer.step()
        self._prepared_optimizer.zero_grad()

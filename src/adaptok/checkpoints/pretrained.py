"""Base of the classes that hold a model of a model folder: its weights, device and type, and uploads to the hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from adaptok.checkpoints.hub import upload
from adaptok.checkpoints.model_card import CardMetadata, publish_card
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.ops.prepacked_linear import iter_parameters
from adaptok.utils.devices import pick_device, pick_dtype

PretrainedT = TypeVar("PretrainedT", bound="Pretrained")


class Pretrained(ABC):
    """A model in evaluation mode, with the methods that tokenizers and generators share.

    Attributes:
        model: The PyTorch module.
        folder: Folder that the model was loaded from, whose card `push_to_hub` uploads; None if there is none.
    """

    model: Model | GeneratorModel
    folder: Path | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""

    def _describe(self, *facts: str) -> str:
        """Return the text of `repr`: the name and size of the model, facts about it, and where it computes."""
        millions = sum(self.model.parameter_counts().values()) / 1e6
        parts = [repr(self.model.config.name), f"{millions:.3g} M parameters", *facts, f"device={self.device}"]
        parts.append(f"dtype={str(self.dtype).removeprefix('torch.')}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the weights of all components, for example to count them.

        The linear layers of a generator on a CPU are stored in another layout (`adaptok.ops.prepacked_linear`); their
        weights are yielded as copies.
        """
        return iter_parameters(self.model)

    def to(
        self: PretrainedT,
        device: str | torch.device | torch.dtype | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> PretrainedT:
        """Move the model to a device and convert its weights, in place, as `torch.nn.Module.to` does.

        The tokenizer of a generator moves with it, and keeps its type.

        Args:
            device: A torch device, or "auto" for CUDA if available, else MPS, else the CPU. None keeps the present one.
                A floating-point type may be given in its place.
            dtype: Type of weights and computation, as for `from_pretrained`. None keeps the present one. Converting to
                a shorter type rounds the weights for good; load the model again to have the original ones.

        Returns:
            This object.

        Raises:
            ValueError: `device` or `dtype` is unrecognized or unavailable.
        """
        if isinstance(device, torch.dtype) or (isinstance(device, str) and _is_dtype(device)):
            if dtype is not None:
                raise ValueError(f"two dtypes, {device} and {dtype}; give one of them")
            device, dtype = None, device
        where = self.device if device is None else pick_device(device)
        self._move(where, self.dtype if dtype is None else pick_dtype(dtype))
        return self

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        self.model.to(device, dtype)

    @abstractmethod
    def save_pretrained(self, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> None:
        """Write a model folder of this project's layout.

        Args:
            folder: Folder to write; it is created if necessary.
            dtype: Type of the stored weights; None keeps the present one.
        """

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        datasets: Sequence[str] = (),
        base_model: str | None = None,
        dtype: str | torch.dtype | None = None,
        private: bool = False,
        token: str | None = None,
        branch: str | None = None,
        message: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face hub, with a model card.

        The card is the README.md of the folder that the model was loaded from, which a training run writes, with its
        pictures. Its usage example gets the id of the upload. Other models get a card that describes the model alone.

        Args:
            repo_id: Hub id `owner/name`. The repository is created if necessary.
            license: License of the weights, in the card's metadata: an identifier such as "apache-2.0", or "other".
                None leaves the metadata of the folder's card as it is.
            datasets: Hub ids of the data sets of the training, in the card's metadata.
            base_model: Hub id of the model that the weights were fine-tuned from, in the card's metadata.
            dtype: Type of the stored weights; None keeps the present one.
            private: Whether a new repository is private.
            token: Access token with write permission. None uses the one that `hf auth login` or HF_TOKEN provides.
            branch: Branch that receives the commit; it is created if necessary. None is the main branch.
            message: Message of the commit.

        Returns:
            The address of the model.

        Raises:
            ValueError: The id or `dtype` is not valid.
            PermissionError: The hub refuses access.
            ConnectionError: The hub cannot be reached, or fails.
        """
        metadata = CardMetadata(license, tuple(datasets), base_model)

        def save(folder: Path) -> None:
            self.save_pretrained(folder, dtype=dtype)
            publish_card(folder, self.model, repo_id, self.folder, metadata)

        return upload(save, repo_id, private=private, token=token, branch=branch, message=message)


def _is_dtype(name: str) -> bool:
    """Return whether a name is that of a floating-point type rather than of a device."""
    try:
        pick_dtype(name)
    except ValueError:
        return False
    return True

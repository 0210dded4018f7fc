"""Published models of the official implementation, on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from adaptok.checkpoints.folders import WEIGHTS_FILE
from adaptok.checkpoints.hub import resolve
from adaptok.utils.files import sha256_of

OFFICIAL_MODELS = {
    "adaptok-tokenizer": "yeahhhh326/AdapTok",
    "adaptok-scorer": "yeahhhh326/AdapTok-Scorer",
    "adaptok-ar": "yeahhhh326/AdapTok-AR",
    "adaptok-fp": "yeahhhh326/AdapTok-FP",
}
"""Hub ids of the tokenizer, the tokenizer with its scorer, the class-conditional generator and the frame predictor."""


def cached_model(repo_id: str) -> Path | None:
    """Return the folder of a model in the cache of the hub, or None if its weights are not there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo_id, WEIGHTS_FILE)
    return Path(path).parent if isinstance(path, str) else None


def fetch_model(repo_id: str) -> Path:
    """Download a model into the cache of the hub, where `AdapTok.from_pretrained(repo_id)` finds it.

    The hub names large files by their SHA-256, which is verified.

    Raises:
        ConnectionError: The model cannot be downloaded.
        ValueError: Its weights are damaged.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = resolve(repo_id)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        place = Path(HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
        raise ConnectionError(
            f"{repo_id} cannot be downloaded from the Hugging Face hub ({type(error).__name__}); without a network,"
            f" fetch it elsewhere and copy the folder {place.name} of its hub cache to {place}"
        ) from None
    weights = (folder / WEIGHTS_FILE).resolve()
    if len(weights.name) == 64 and sha256_of(weights) != weights.name:
        raise ValueError(f"{weights}: damaged, its SHA-256 is not its name; remove it and fetch the model again")
    return folder

"""Locating model folders: bundled with the package, on this machine, or on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

from adaptok.checkpoints.folders import CONFIG_FILE, WEIGHTS_FILE
from adaptok.checkpoints.official_training import SUFFIXES

BUNDLED_MODEL = "adaptok-tiny"
"""Name of the bundled tokenizer, under `assets/`."""
BUNDLED = (BUNDLED_MODEL, "adaptok-tiny-generator")
"""Names of all bundled models."""


@contextmanager
def local_folder(name: str | Path | None, bundled: str = BUNDLED_MODEL) -> Iterator[Path]:
    """Provide the local folder of a model; None is the bundled model named `bundled`. Errors as for `resolve`."""
    if name is None:
        with as_file(files("adaptok") / "assets" / bundled) as folder:
            yield folder
    else:
        yield resolve(name)


def resolve(name: str | Path) -> Path:
    """Return a local folder. The hub id `owner/name` of a model is downloaded, unless a folder has that path.

    The names of bundled models stand for their folders in the package.

    Raises:
        FileNotFoundError: There is no such folder, and the name is not a hub id.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.suffix in SUFFIXES:
        raise FileNotFoundError(
            f"{name}: expected a model folder; convert the checkpoint with 'adaptok convert {name}'"
        )
    bundled = files("adaptok") / "assets" / str(name)
    if name in BUNDLED and isinstance(bundled, Path):
        return bundled
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) and not path.parent.is_dir():
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(name), allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    raise FileNotFoundError(
        f"{name}: no such model folder, and not a hub id of the form owner/name; the bundled models are"
        f" {' and '.join(BUNDLED)}"
    )


def upload(save: Callable[[Path], None], repo_id: str, *, private: bool, token: str | None) -> str:
    """Upload the folder that `save` writes to the Hugging Face hub as `owner/name`, and return its address.

    `token` is an access token; None uses the one of the hub's login.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    with TemporaryDirectory() as folder:
        save(Path(folder))
        api.upload_folder(repo_id=repo_id, folder_path=folder)
    return str(url)

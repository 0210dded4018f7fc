"""Model folders by name: bundled with the package, on this machine, or on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from adaptok.checkpoints.folders import CONFIG_FILE, WEIGHTS_FILE
from adaptok.checkpoints.official_training import SUFFIXES
from adaptok.utils.checksums import CHECKSUMS_FILE

BUNDLED_MODEL = "adaptok-tiny"
"""Name of the bundled tokenizer, under `assets/`."""
BUNDLED = (BUNDLED_MODEL, "adaptok-tiny-generator")
"""Names of all bundled models."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
_SIMILAR = 0.75
"""Smallest similarity of two names, from 0 to 1, at which one is taken for a misspelling of the other."""


class HubOptions(NamedTuple):
    """How a model is fetched from the Hugging Face hub.

    revision: Branch, tag or commit. None is the main branch.
    token: Access token for private models. None uses the one that `hf auth login` or HF_TOKEN provides, if any.
    cache_dir: Folder of downloads. None is that of the hub's library (HF_HUB_CACHE).
    local_files_only: Use earlier downloads without asking the hub.
    """

    revision: str | None = None
    token: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


@contextmanager
def local_folder(
    name: str | Path | None, bundled: str = BUNDLED_MODEL, options: HubOptions | None = None
) -> Iterator[Path]:
    """Provide the local folder of a model; None is the bundled model named `bundled`. Errors as for `resolve`."""
    if name is None:
        with as_file(files("adaptok") / "assets" / bundled) as folder:
            yield folder
    else:
        yield resolve(name, options)


def resolve(name: str | Path, options: HubOptions | None = None) -> Path:
    """Return a local folder. The hub id `owner/name` of a model is downloaded, unless a folder has that path.

    The names of bundled models stand for their folders in the package. If there is a folder of a similar path, a hub id
    needs a revision, so that a misspelled path is not sent to the hub.

    Args:
        name: Folder, hub id `owner/name` or `owner/name@revision`, or name of a bundled model.
        options: How a model is fetched from the hub.

    Raises:
        FileNotFoundError: There is no such folder, and no such model or revision on the hub or among the downloads.
        PermissionError: The hub refuses access to the model.
        ConnectionError: The hub cannot be reached, or fails.
        ValueError: A revision is given for a folder, or two different ones for a model.
    """
    options = options or HubOptions()
    path = Path(name)
    bundled = files("adaptok") / "assets" / str(name)
    local = path if path.is_dir() else bundled if name in BUNDLED and isinstance(bundled, Path) else None
    if local is not None:
        if options.revision is not None:
            raise ValueError(
                f"revision {options.revision!r} of {name}, which is a folder; only models on the Hugging Face hub have"
                " revisions"
            )
        return local
    if path.suffix in SUFFIXES:
        raise FileNotFoundError(
            f"{name}: expected a model folder; convert the checkpoint with 'adaptok convert {name}'"
        )
    hub_id = parse_hub_id(name)
    if hub_id is None:
        raise FileNotFoundError(
            f"{name}: no such model folder, and not a hub id of the form owner/name; the bundled models are"
            f" {' and '.join(BUNDLED)}"
        )
    if hub_id.revision is not None:
        if options.revision not in (None, hub_id.revision):
            raise ValueError(f"revision {options.revision!r} of {name}, which names another; give one of them")
        options = options._replace(revision=hub_id.revision)
    if options.revision is None and not options.local_files_only and (similar := _similar_folder(hub_id.repo_id)):
        raise FileNotFoundError(_not_found(name, similar))
    return _download(hub_id.repo_id, options)


class HubId(NamedTuple):
    """Name of a model on the hub.

    repo_id: `owner/name`.
    revision: Branch, tag or commit, if the name states it.
    """

    repo_id: str
    revision: str | None


def parse_hub_id(name: str | Path) -> HubId | None:
    """Read a name of the form `owner/name` or `owner/name@revision`; None for others, and paths in existing folders."""
    repo_id, at, revision = str(name).partition("@")
    if _HUB_ID.fullmatch(repo_id) is None or (at and _REVISION.fullmatch(revision) is None):
        return None
    return None if Path(repo_id).parent.is_dir() else HubId(repo_id, revision or None)


def folder_name(name: str) -> str:
    """Return the last part of the name of a model, without the revision of a hub id."""
    hub_id = parse_hub_id(name)
    return Path(name if hub_id is None else hub_id.repo_id).name


def refuse_unpinned(name: str) -> None:
    """Check that a name from the command line is no misspelled path that would be sent to the hub.

    Raises:
        FileNotFoundError: It could be a hub id, but states no revision.
    """
    hub_id = parse_hub_id(name)
    is_local = Path(name).exists() or Path(name).suffix in SUFFIXES
    if not is_local and hub_id is not None and hub_id.revision is None:
        raise FileNotFoundError(_not_found(name, _similar_folder(hub_id.repo_id)))


def _not_found(name: str | Path, similar: Path | None) -> str:
    suggestion = "" if similar is None else f"; did you mean {similar}?"
    return (
        f"{name}: no such file or model folder{suggestion}; a model of the Hugging Face hub is named with its revision,"
        f" such as {name}@main"
    )


def _similar_folder(repo_id: str) -> Path | None:
    """Return an existing path whose first folder is spelled similarly."""
    owner, _, name = repo_id.partition("/")
    folders = [path.name for path in Path().glob("*") if path.is_dir()]
    similar = (Path(each) / name for each in get_close_matches(owner, folders, cutoff=_SIMILAR))
    return next((path for path in similar if path.exists()), None)


def _download(repo_id: str, options: HubOptions) -> Path:
    """Fetch a model from the hub, and return its folder among the downloads. Errors as for `resolve`."""
    from huggingface_hub import snapshot_download

    with _hub_errors(repo_id, options):
        folder = snapshot_download(
            repo_id,
            revision=options.revision,
            token=options.token,
            cache_dir=options.cache_dir,
            local_files_only=options.local_files_only,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CHECKSUMS_FILE],
        )
    return Path(folder)


@contextmanager
def _hub_errors(repo_id: str, options: HubOptions) -> Iterator[None]:
    """Replace errors of the hub's library, which have several lines, by the errors that `resolve` documents."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise PermissionError(
            f"{repo_id}: access is restricted; accept its conditions at {constants.ENDPOINT}/{repo_id}, and give a"
            " token"
        ) from None
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{repo_id}: no such model folder, and no such model at {constants.ENDPOINT}, or a private one; check the"
            " name, or give a token"
        ) from None
    except RevisionNotFoundError:
        raise FileNotFoundError(
            f"{repo_id}: no revision {options.revision or constants.DEFAULT_REVISION!r}; expected a branch, tag or"
            f" commit listed at {constants.ENDPOINT}/{repo_id}/tree/main"
        ) from None
    except LocalEntryNotFoundError as error:
        if options.local_files_only:
            raise FileNotFoundError(
                f"{repo_id}: not among the downloads in {options.cache_dir or constants.HF_HUB_CACHE}; fetch it once"
                " without local_files_only"
            ) from None
        raise ConnectionError(_unreachable(repo_id, constants.ENDPOINT, error)) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PermissionError(
                f"{repo_id}: {constants.ENDPOINT} refuses access (status {status}); check the token and its permissions"
            ) from None
        raise ConnectionError(_unreachable(repo_id, constants.ENDPOINT, error)) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _HTTP_CLIENTS:
            raise
        raise ConnectionError(_unreachable(repo_id, constants.ENDPOINT, error)) from None


_HTTP_CLIENTS = ("requests", "httpx", "httpx2", "httpcore", "json")
"""Packages whose errors versions of the hub's library let through when there is no connection, or no valid answer."""


def _unreachable(repo_id: str, endpoint: str, error: Exception) -> str:
    cause = error.__cause__ or error
    reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    return f"{repo_id}: cannot be exchanged with {endpoint} ({reason}); check the connection, and try again"


def upload(
    save: Callable[[Path], None],
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    branch: str | None = None,
    message: str | None = None,
) -> str:
    """Upload the files that `save` writes into a folder to the Hugging Face hub.

    Args:
        save: Function that writes the files into a folder.
        repo_id: Id `owner/name` of the model. The repository is created if necessary.
        private: Whether a new repository is private.
        token: Access token with write permission. None uses the one that `hf auth login` or HF_TOKEN provides.
        branch: Branch that receives the commit; it is created if necessary. None is the main branch.
        message: Message of the commit.

    Returns:
        The address of the model.

    Raises:
        ValueError: The id does not have the form `owner/name`.
        PermissionError: The hub refuses access.
        ConnectionError: The hub cannot be reached, or fails.
    """
    from huggingface_hub import HfApi

    if not _HUB_ID.fullmatch(repo_id):
        raise ValueError(f"repo_id {repo_id!r}, expected the form owner/name")
    api = HfApi(token=token)
    with TemporaryDirectory() as folder:
        save(Path(folder))
        with _hub_errors(repo_id, HubOptions(branch, token)):
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=branch,
                commit_message=message or "Upload a model with adaptok",
            )
    return str(url)

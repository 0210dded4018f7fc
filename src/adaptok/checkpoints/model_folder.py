"""Model folders: read and write tokenizers and generators.

A folder holds `config.json`, `model.safetensors`, and `SHA256SUMS` with the checksums of both, which are verified when
the folder is read. Folders of other programs, and of earlier versions, have no checksums.

In this project's layout, `config.json` is `{"format": "adaptok", "version": 1, "model": {...}}`, with the format
"adaptok-generator" for generators, and the names of weights begin with the module they belong to: `tokenizer.`,
`scorer.` or `prior.`. Official folders have a flat `config.json` and other names, which `official_tokenizer` and
`official_generator` convert. Checkpoints (`.pth`) of the official training hold the same configuration and weights, and
are read wherever a folder is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptok.checkpoints import official_generator, official_tokenizer
from adaptok.checkpoints.folders import CONFIG_FILE, WEIGHTS_FILE, describe_folder
from adaptok.checkpoints.official_training import SUFFIXES, read_training_checkpoint
from adaptok.config.base import ConfigT
from adaptok.config.generator import GeneratorConfig
from adaptok.config.model import ModelConfig
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model, weights_hash
from adaptok.utils.checksums import CHECKSUMS_FILE, DamagedError, check_files, format_checksums
from adaptok.utils.files import replacing, sha256_of
from adaptok.utils.messages import one_line

FORMAT, GENERATOR_FORMAT, VERSION = "adaptok", "adaptok-generator", 1
_MAX_SHOWN = 8  # problems and names that a message lists

Kind = Literal["tokenizer", "generator", "unknown"]


class CheckpointError(ValueError):
    """A model folder cannot be read. The message is one line."""


class Checkpoint(NamedTuple):
    """Configuration and weights of a tokenizer, under this project's names.

    layout: Layout of the folder that was read, "adaptok" or "official".
    """

    config: ModelConfig
    state: dict[str, Tensor]
    layout: str

    def build(self) -> Model:
        """Build the model in float32 on the CPU.

        Raises:
            CheckpointError: Weights are missing, unknown or of another shape.
        """
        with torch.device("meta"):
            model = Model(self.config)
        check_names(self.state, model.state_dict())
        model.load_state_dict(self.state, assign=True)
        return model.float().eval()

    def hash(self) -> str:
        """Return the hash of the tokenizer's weights, which token files store."""
        return weights_hash(self.state)


def check_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check the names and shapes of weights.

    Raises:
        CheckpointError: Weights are missing, unknown, or of another shape or kind of number. The message lists them.
    """
    problems = []
    if missing := sorted(expected.keys() - state.keys()):
        problems.append(f"{len(missing)} missing weights: {_first(missing, ', ')}")
    if unknown := sorted(state.keys() - expected.keys()):
        problems.append(f"{len(unknown)} unknown weights: {_first(unknown, ', ')}")
    for name in sorted(expected.keys() & state.keys()):
        actual, wanted = tuple(state[name].shape), tuple(expected[name].shape)
        if actual != wanted:
            problems.append(f"{name} has shape {actual}, the configuration expects {wanted}")
        elif state[name].is_floating_point() != expected[name].is_floating_point():
            problems.append(f"{name} has type {state[name].dtype}, the configuration expects {expected[name].dtype}")
    if problems:
        raise CheckpointError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}: {_first(problems, '; ')}")


def _first(texts: Sequence[str], separator: str) -> str:
    """Join texts, and count those above a limit instead."""
    more = [f"and {len(texts) - _MAX_SHOWN} more"] if len(texts) > _MAX_SHOWN else []
    return separator.join([*texts[:_MAX_SHOWN], *more])


def check_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    """Check that no weight is infinite or not a number.

    Args:
        state: Weights by name.
        source: Where they come from, for the message.

    Raises:
        CheckpointError: Some are. The message names the first.
    """
    wrong = [name for name, tensor in state.items() if not _is_finite(tensor)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{source}: weights that are infinite or not a number, in {wrong[0]}{more}; use a model from before its"
            " training diverged"
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    low, high = (tensor if tensor.itemsize > 1 else tensor.float()).detach().aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high))


def read_folder(folder: str | Path) -> Checkpoint:
    """Read a tokenizer from a model folder of either layout, or from a checkpoint (`.pth`) of the official training.

    Raises:
        FileNotFoundError: The folder or one of its two files is missing.
        CheckpointError: A file is damaged or was exchanged, a weight is not finite, or the folder holds no tokenizer.
    """
    folder = Path(folder)
    document, state = _read_files(folder)
    if _kind(document) == "generator":
        raise CheckpointError(f"{folder}: a generator, expected a tokenizer")
    if document.get("format") == FORMAT:
        return Checkpoint(_read_config(document, folder, ModelConfig), state, "adaptok")
    if _kind(document) == "unknown":
        raise CheckpointError(
            f'{folder / CONFIG_FILE}: neither an adaptok model ("format": "{FORMAT}") nor an official AdapTok'
            ' tokenizer ("bottleneck_token_num"); give the folder of a tokenizer'
        )
    with _conversion_errors(folder):
        config, state = official_tokenizer.translate(document, state)
    return Checkpoint(config, state, "official")


def read_generator(folder: str | Path, dtype: torch.dtype = torch.float32) -> GeneratorModel:
    """Read a generator from a model folder of either layout, or from a checkpoint of the official training.

    The model is in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: The folder or one of its two files is missing.
        CheckpointError: A file is damaged or was exchanged, the folder holds no generator, or the weights do not fit or
            are not finite.
    """
    folder = Path(folder)
    document, state = _read_files(folder)
    if _kind(document) != "generator":
        raise CheckpointError(
            f"{folder}: {_kind(document)} model, expected a generator; give the folder of a generator"
        )
    if document.get("format") == GENERATOR_FORMAT:
        config = _read_config(document, folder, GeneratorConfig)
    else:
        with _conversion_errors(folder):
            config, state = official_generator.translate(document, state)
    with torch.device("meta"):
        model = GeneratorModel(config)
    check_names(state, model.state_dict())
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    model.fill_tables()
    return model.eval()


def holds_generator(folder: Path) -> bool:
    """Return whether a folder, or a checkpoint of the official training, holds a generator. False if it holds no model.

    Raises:
        CheckpointError: A checkpoint of the official training cannot be read.
    """
    if _is_training_checkpoint(folder):
        return _kind(_read_files(folder)[0]) == "generator"
    try:
        document = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and _kind(document) == "generator"


def write_folder(model: Model | GeneratorModel, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model folder of this project's layout. Each file is replaced atomically.

    Args:
        model: The tokenizer or generator.
        folder: Folder to write; it is created if necessary.
        dtype: Type of the stored floating-point weights.

    Raises:
        CheckpointError: A weight is not finite, or its value is too large for `dtype`.
    """
    name = GENERATOR_FORMAT if isinstance(model, GeneratorModel) else FORMAT
    document = {"format": name, "version": VERSION, "model": model.config.model_dump(mode="json")}
    _write_files(Path(folder), document, _stored_weights(model, dtype))


def write_official_folder(
    model: Model | GeneratorModel, folder: str | Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write a tokenizer or a generator in the official layout. Arguments as for `write_folder`.

    Raises:
        ValueError: The official layout does not support this architecture.
    """
    state = _stored_weights(model, dtype)
    if isinstance(model, GeneratorModel):
        document, state = official_generator.to_document(model.config), official_generator.to_official_names(state)
    else:
        document = official_tokenizer.to_document(model.config)
        state = official_tokenizer.to_official_names(model.config, state)
    _write_files(Path(folder), document, state)


def _kind(document: Mapping[str, Any]) -> Kind:
    """Return the kind of model that a `config.json` describes."""
    if document.get("format") == GENERATOR_FORMAT or ("n_layer" in document and "vocab_size" in document):
        return "generator"
    is_tokenizer = document.get("format") == FORMAT or "bottleneck_token_num" in document
    return "tokenizer" if is_tokenizer else "unknown"


def _is_training_checkpoint(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file()


def _read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the two files of a model folder, or a checkpoint of the official training."""
    if _is_training_checkpoint(folder):
        try:
            document, state = read_training_checkpoint(folder)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        check_finite(state, folder)
        return document, state
    for file in (folder, folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        if not file.exists():
            raise FileNotFoundError(
                f"{file}: not found; expected a model folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
                f"{describe_folder(folder)}"
            )
    try:
        check_files(folder, (CONFIG_FILE, WEIGHTS_FILE))
    except DamagedError as error:
        raise CheckpointError(str(error)) from None
    try:
        document = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: not a JSON file ({error})") from None
    except RecursionError:
        raise CheckpointError(f"{folder / CONFIG_FILE}: nested too deeply, expected a configuration") from None
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: damaged, or not a safetensors file ({one_line(error)})"
        ) from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected a JSON object, got {type(document).__name__}")
    check_finite(state, folder / WEIGHTS_FILE)
    return document, state


def _read_config(document: Mapping[str, Any], folder: Path, kind: type[ConfigT]) -> ConfigT:
    """Read the configuration in a `config.json` of this project's layout."""
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: version {document.get('version')!r} of the format, this program reads {VERSION};"
            " install a newer adaptok"
        )
    try:
        return kind.parse(document.get("model", {}), str(folder / CONFIG_FILE))
    except ValueError as error:
        raise CheckpointError(str(error)) from None


@contextmanager
def _conversion_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: the field {error} is missing") from None
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: a field has a value of the wrong type ({error})") from None
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def _stored_weights(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    check_finite(state, f"the model in {str(dtype).removeprefix('torch.')}")
    return state


def _write_files(folder: Path, document: Mapping[str, Any], state: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (  # all are complete before the first gets its name
        replacing(folder / CHECKSUMS_FILE) as checksums,
        replacing(folder / CONFIG_FILE) as config,
        replacing(folder / WEIGHTS_FILE) as weights,
    ):
        save_file(state, weights, metadata={"format": "pt"})
        config.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        hashes = {WEIGHTS_FILE: sha256_of(weights), CONFIG_FILE: sha256_of(config)}
        checksums.write_text(format_checksums(hashes), encoding="utf-8")

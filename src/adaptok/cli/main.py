"""The command line: `adaptok COMMAND …`, or `python -m adaptok`."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from adaptok.cli import (
    benchmark,
    compare,
    convert,
    data,
    decode,
    encode,
    evaluate,
    export,
    generate,
    info,
    predict,
    reconstruct,
    tokenize,
    train,
)

DESCRIPTION = "Video in, short adaptive sequences of discrete tokens out, and back."
USER_ERROR = 2
INTERRUPTED = 130
_COMMANDS: dict[str, Callable[..., Any]] = {
    "encode": encode.Encode,
    "decode": decode.Decode,
    "reconstruct": reconstruct.Reconstruct,
    "info": info.Info,
    "convert": convert.Convert,
    "data": data.Data,
    "tokenize": tokenize.Tokenize,
    "train": train.Train,
    "evaluate": evaluate.Evaluate,
    "compare": compare.Compare,
    "benchmark": benchmark.Benchmark,
    "export": export.Export,
    "generate": generate.Generate,
    "predict": predict.Predict,
}


def run() -> None:
    """The program: `main`, and a quick end where it was interrupted. Everything is cleaned up by then, and decoding
    threads that were stopped in the middle can keep the interpreter from ever ending by itself."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for huge pages: a tenth faster on a CPU
    try:
        main()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        parse(arguments).run()
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-made is left behind", INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        _fail(_one_line(error), USER_ERROR)


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for, ready to run.

    Raises:
        ValueError: they cannot be understood.
        SystemExit: help was asked for, and printed.
    """
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            if arguments[:1] == ["train"]:  # its flags depend on the configuration that they name
                return train.parse(arguments[1:])
            return tyro.extras.subcommand_cli_from_dict(
                _COMMANDS,
                prog="adaptok",
                description=DESCRIPTION,
                args=_merge_repeated(arguments, "--budget"),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        words = re.sub(r"[^\S ]|[─-╿]", " ", captured.getvalue())
        raise ValueError(re.sub(r" {2,}", " ", words).strip() or "the arguments cannot be understood") from None


def _merge_repeated(arguments: Sequence[str], flag: str) -> list[str]:
    """`--flag a … --flag b` as `--flag a,b`; `--flag=a` likewise."""
    values: list[str] = []
    rest: list[str] = []
    waiting = False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == flag and value:
            values.append(value)
            waiting = False
        elif argument == flag:
            waiting = True
        elif waiting and not argument.startswith("--"):
            values.append(argument)
            waiting = _is_number(argument)
        else:
            rest.append(argument)
            waiting = False
    return [*rest, f"{flag}={','.join(values)}"] if values else rest


def _is_number(text: str) -> bool:
    """Whether another budget may follow this argument."""
    return re.fullmatch(r"[\d.,]+", text) is not None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}"
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> None:
    print(f"adaptok: error: {message}", file=sys.stderr)
    sys.exit(code)

"""The command line: `adaptok COMMAND …`, or `python -m adaptok`.

Everything but the standard library is imported inside functions, so that an interrupt at any time after the first
lines of this module ends the program without a traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

FAILURE, USER_ERROR, INTERRUPTED = 1, 2, 130
TRACEBACK_VARIABLE = "ADAPTOK_TRACEBACK"
"""Environment variable that makes every error print its traceback."""


class _Interrupts:
    """Handler of SIGINT and SIGTERM that raises KeyboardInterrupt, and remembers it.

    Modules that are being imported may turn the exception into another one, and Python prints it, and goes on, if it is
    raised in a destructor.
    """

    received = False

    def __call__(self, *_: object) -> NoReturn:
        self.received = True
        raise KeyboardInterrupt

    def raise_again(self, unraisable: Any) -> None:
        """Raise an interrupt again that Python has caught. Print other exceptions."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            import _thread
            import threading

            again = threading.Timer(0.05, _thread.interrupt_main)  # when the destructor has ended
            again.daemon = True
            again.start()
        else:
            sys.__unraisablehook__(unraisable)


_interrupts = _Interrupts()


def run() -> None:
    """Run the program, and end it at once if it was interrupted."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for huge pages: a tenth faster on a CPU
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
            signal.signal(signal.SIGINT, _interrupts)
        sys.unraisablehook = _interrupts.raise_again
        main()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to do
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # everything is cleaned up, and decoding threads could keep the interpreter alive
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: the command line without the program's name; that of the process if not given.

    Raises:
        SystemExit: help was requested (code 0), the arguments or inputs are wrong (2), the command failed for another
            reason (1), or it was interrupted (130). Errors are printed in one line.
    """
    command, _interrupts.received = None, False
    try:
        signal.signal(signal.SIGTERM, _interrupts)
        from adaptok.utils.threads import LoadMeter

        meter = LoadMeter()  # measures while the modules of the command line are loaded
        from adaptok.cli.output import held_outputs
        from adaptok.cli.parser import parse
        from adaptok.cli.threads import set_threads

        command = parse(list(sys.argv[1:] if arguments is None else arguments))
        set_threads(command, meter)
        if _is_verbose(command):
            import logging

            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        _check_model_names(command)
        with held_outputs:
            command.run()
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "interrupted; no incomplete files are left behind", INTERRUPTED)
    except BrokenPipeError:
        sys.exit(FAILURE)
    except Exception as error:
        if _interrupts.received:
            _fail("interrupted; no incomplete files are left behind", INTERRUPTED)
        if os.environ.get(TRACEBACK_VARIABLE) or _is_verbose(command):
            import traceback

            traceback.print_exc()
        _fail(describe(error), exit_code(error))


def exit_code(error: BaseException) -> int:
    """2 for what the user gave wrong, 1 for every other failure."""
    from adaptok.cli.errors import UsageError

    mistakes = (UsageError, ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
    bad_name = isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
    return USER_ERROR if bad_name or isinstance(error, (*mistakes, PermissionError)) else FAILURE


def describe(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}"
    from adaptok.cli.errors import Failure

    text = " ".join(str(error).split())
    if isinstance(error, ImportError | FloatingPointError | OSError | Failure) or exit_code(error) == USER_ERROR:
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}; see the traceback with --verbose or {TRACEBACK_VARIABLE}=1"


def _check_model_names(command: Any) -> None:
    """Raise FileNotFoundError if a model of the hub is named without a revision, as a misspelled path would be."""
    from adaptok.cli.options import MODEL_NAME
    from adaptok.cli.structure import marked_values

    for name in marked_values(command, MODEL_NAME):
        from adaptok.checkpoints.hub import refuse_unpinned

        refuse_unpinned(name)


def _is_verbose(command: Any) -> bool:
    return bool(getattr(getattr(command, "messages", None), "verbose", False))


_MAX_MESSAGE = 1500
"""Characters of an error message. Values in damaged files may be as long as these files."""


def _fail(message: str, code: int) -> NoReturn:
    from adaptok.cli.errors import plain

    if len(message) > _MAX_MESSAGE:
        message = f"{message[: _MAX_MESSAGE // 2]} … {message[-_MAX_MESSAGE // 2 :]}"
    print(plain(f"adaptok: error: {message}"), file=sys.stderr)
    sys.exit(code)

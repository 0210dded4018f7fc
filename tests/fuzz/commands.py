"""Commands on fuzzed inputs, in the process of the target."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

from adaptok.cli.main import main
from tests.fuzz.harness import Failure, Refused, check_message

PREFIX = "adaptok: error: "


def command(*arguments: object) -> dict[str, Any]:
    """Run a command with `--json --quiet`, and return what it prints.

    Raises:
        Refused: It ended with the documented exit code 2, or 1 for a failure that it describes, and one line.
        Failure: Anything else.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([*map(str, arguments), "--json", "--quiet"])
    except SystemExit as stop:
        lines = [line for line in err.getvalue().split("\n") if line and not line.startswith("adaptok: warning: ")]
        message = lines[-1] if lines else ""
        if stop.code not in (1, 2) or len(lines) != 1 or not message.startswith(PREFIX):
            raise Failure(f"exit code {stop.code} and {err.getvalue()!r:.500}") from None
        if "see the traceback" in message:
            raise Failure(message) from stop
        check_message(message, printed=True)
        raise Refused(message) from None
    document: dict[str, Any] = json.loads(out.getvalue())
    return document | {"warnings": err.getvalue()}

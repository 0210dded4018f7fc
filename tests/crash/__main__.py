"""Kill commands: `python -m tests.crash [COMMAND ...] [--kills N] [--seed S]`.

Each command is killed by SIGKILL at random moments, and finished after every few kills. What counts as data must be
whole after each kill, and the result must equal that of an undisturbed run bit for bit.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.commands import COMMANDS
from tests.crash.harness import crash


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"default: all of {', '.join(COMMANDS)}")
    parser.add_argument("--kills", type=int, default=20, help="kills of each command; default: 20")
    parser.add_argument("--seed", type=int, help="seed of the moments, which depend on the machine, too")
    options = parser.parse_args()
    if unknown := set(options.commands) - COMMANDS.keys():
        parser.error(f"unknown command {', '.join(sorted(unknown))}; expected {', '.join(COMMANDS)}")
    seed = int(time.time()) if options.seed is None else options.seed
    failed = 0
    for name in options.commands or COMMANDS:
        scratch = Path(tempfile.mkdtemp(prefix=f"adaptok-crash-{name}-"))
        try:
            print(crash(COMMANDS[name](scratch / "inputs"), options.kills, seed, scratch), flush=True)
        except AssertionError as error:
            print(f"{name}: failed with seed {seed}, files in {scratch}: {error}", flush=True)
            failed += 1
        else:
            shutil.rmtree(scratch)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

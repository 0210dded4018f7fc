"""Fuzz adaptok: `python -m tests.fuzz [TARGET ...] [--minutes M | --count N] [--seed S]`.

Targets are run one after the other, by all workers; minutes are divided among them. The exit code is 1 if an input
failed. The inputs that failed are saved with what happened, and each can be repeated by its number.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import Outcome, judge
from tests.fuzz.runner import prepare, run
from tests.fuzz.targets import TARGETS, load_target


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--count", type=int, help="inputs per target")
    parser.add_argument("--minutes", type=float, help="minutes in total; default: 1, if no count is given")
    parser.add_argument("--seed", type=int, help="seed of the inputs; default: the time")
    parser.add_argument("--repeat", type=int, metavar="NUMBER", help="run one input again in this process, and keep it")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=Path, default=Path("out/fuzz"), help="folder for inputs that fail")
    parser.add_argument("--messages", type=int, default=0, metavar="N", help="also print the N most frequent refusals")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"unknown target {', '.join(sorted(unknown))}; expected {', '.join(TARGETS)}")
    seed = int(time.time()) if options.seed is None else options.seed
    if options.repeat is not None:
        return repeat(names[0], seed, options.repeat, options.save)
    minutes = options.minutes if options.minutes or options.count else 1.0
    failed = 0
    with tempfile.TemporaryDirectory(prefix="adaptok-fuzz-") as scratch:
        os.environ["ADAPTOK_CACHE"] = f"{scratch}/cache"
        for name in names:
            report = run(
                name,
                Path(scratch),
                options.save,
                seed=seed,
                count=options.count,
                minutes=None if minutes is None else minutes / len(names),
                workers=options.workers,
                on_failure=show,
            )
            print(report, flush=True)
            for message, count in report.refusals.most_common(options.messages):
                print(f"    {count} x {message}")
            failed += report.failed
    if failed:
        print(f"{failed} inputs failed (seed {seed}); examples are in {options.save}")
    return 1 if failed else 0


def show(index: int, outcome: Outcome) -> None:
    print(f"  number {index}: {outcome.signature}", file=sys.stderr, flush=True)


def repeat(name: str, seed: int, index: int, save: Path) -> int:
    """Run one input, keep it, and print what happened."""
    folder = save / f"{name}-{seed}-{index}"
    with tempfile.TemporaryDirectory(prefix="adaptok-fuzz-") as scratch:
        os.environ["ADAPTOK_CACHE"] = f"{scratch}/cache"
        seeds = Path(scratch) / name / "seeds"
        prepare(name, seeds)
        target = load_target(name)
        target.open(seeds)
        outcome = judge(target, seed, index, folder)
    print(f"{outcome.kind}\n{outcome.text}\nThe input is in {folder}.")
    return outcome.kind == "failed"


if __name__ == "__main__":
    sys.exit(main())

"""Train the bundled model, in stages that can be interrupted and resumed.

    python experiments/bundled_model/run.py --data DATA --lpips LPIPS --out runs/bundled

Stages: reconstruction (encoder and decoder), perceptual (decoder only, so that token ids stay the same), scorer,
generator (on drawn shapes), report. Run the same command again to resume after an interruption; finished stages are
skipped. README.md in this folder describes the recipe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
import yaml

import adaptok

HERE = Path(__file__).parent
BUNDLED = Path(adaptok.__file__).parent / "assets" / "adaptok-tiny"
Stage = Literal["reconstruction", "perceptual", "scorer", "generator", "report"]
TRAINED = ("reconstruction", "perceptual", "scorer", "generator")
CLIPS = {"reconstruction": 300_000, "perceptual": 60_000, "scorer": 4_280, "generator": 40_000}
"""Default number of training clips of each stage."""
CUDA = {
    # large batches use a GPU fully, and need higher learning rates than the small batches of the configurations
    "reconstruction": {"micro_batch_size": 64, "optimizer.lr": 1e-3},
    "perceptual": {"micro_batch_size": 64, "optimizer.lr": 1e-3},
    "generator": {"micro_batch_size": 128, "optimizer.lr": 5e-3},
}
WORKERS = 14
"""Number of processes that decode clips on a machine with a GPU."""
CALIBRATION_STEPS = 20
"""Number of steps on which the speed of a stage with a time budget is measured."""
TARGETS_PER_FILE = 8
"""Number of clips in a file of targets of the scorer."""
CALIBRATION_FILES = 5
"""Number of files of targets on which the speed of the scorer stage is measured."""
GENERATOR_BUDGET = 256
"""Mean number of tokens per clip of the generator's training data."""


@dataclass(kw_only=True)
class Recipe:
    """Data, results and length of each stage."""

    data: Path
    """Folder with videos/train, videos/val and images."""
    lpips: Path
    """Folder with lpips_vgg.safetensors and lpips_alex.safetensors."""
    out: Path
    """Folder of all runs. Models are in OUT/STAGE/model, the report in OUT/report."""
    initial: Path = BUNDLED
    """Model folder that the first stage starts from."""
    initial_generator: Path = BUNDLED.parent / "adaptok-tiny-generator"
    """Generator folder that the generator stage starts from."""
    stages: tuple[Stage, ...] = get_args(Stage)
    """Stages to run, in this order. A stage needs the results of those before it."""
    clips: Annotated[dict[str, int], tyro.conf.arg(metavar="STAGE CLIPS ...")] = field(default_factory=dict)
    """Number of training clips of a stage instead of its default, for example --clips reconstruction 20000. The scorer
    sees them 200 times."""
    minutes: Annotated[dict[str, float], tyro.conf.arg(metavar="STAGE MINUTES ...")] = field(default_factory=dict)
    """Time budget of a stage in minutes, instead of --clips. The speed is measured once, and the number of clips
    follows from it. For the scorer, it is the time to measure its targets."""
    shapes: int = 14_000
    """Number of drawn clips that the generator is trained on."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: large batches, bfloat16, compiled layers, clips read by 14 processes."""
    processes: int = 1
    """Number of training processes. Each one takes batches of its own, so the global batch grows with it."""
    dry_run: bool = False
    """Print the commands without running them."""

    def run(self) -> None:
        """Run all stages.

        Raises:
            SystemExit: a command failed, or an option names no stage.
        """
        for name in (*self.clips, *self.minutes):
            if name not in TRAINED:
                sys.exit(f"{name!r} is not a training stage, expected one of {', '.join(TRAINED)}")
        if both := self.clips.keys() & self.minutes.keys():
            sys.exit(f"--clips and --minutes for {min(both)}: give one of them")
        for name, value in (*self.clips.items(), *self.minutes.items()):
            if value <= 0:
                sys.exit(f"{name} {value}, expected a number above 0")
        if not self.dry_run:
            self.out.mkdir(parents=True, exist_ok=True)
        for stage in self.stages:
            if stage == "report":
                self._report()
            elif (self.out / stage / "model" / "config.json").exists():
                print(f"{stage}: finished", file=sys.stderr)
            else:
                self._train(stage)

    def model(self, stage: str) -> Path:
        """Return the folder of the model that a stage trains."""
        return self.out / stage / "model"

    def _train(self, stage: str) -> None:
        if stage == "scorer":
            self._train_scorer()
            return
        if stage == "generator":
            self._draw_tokens()
        arguments = self.training_arguments(stage)
        steps = self._steps(stage, arguments)
        every = str(max(1, min(steps, 25 if self.device == "cuda" else 50)))
        options = ["--max-steps", str(steps), "--checkpoint-every", every, "--output", str(self.out / stage)]
        self._execute([*arguments, *options], True)

    def _train_scorer(self) -> None:
        """Measure targets once, and train on them for many epochs. The first command resumes by itself."""
        files = max(2, self._planned("scorer", TARGETS_PER_FILE, self._targets_per_second))
        targets = self._measure_targets(files * TARGETS_PER_FILE)
        training = ["--initial", str(self.model("perceptual")), "--held-out", str(max(1, files // 100))]
        script = ["train_scorer.py", str(HERE / "scorer.yaml"), targets, str(self.model("scorer"))]
        self._run_script([*script, *training, "--data", *self._training_data()])

    def _measure_targets(self, clips: int) -> str:
        """Measure the targets of a scorer for a number of clips, and return their folder."""
        targets = str(self.out / "scorer" / "targets")
        script = ["scorer_targets.py", str(HERE / "scorer.yaml"), targets, "--initial", str(self.model("perceptual"))]
        options = ["--clips", str(clips), "--device", self.device]
        self._run_script([*script, *options, "--data", *self._training_data()])
        return targets

    def _training_data(self) -> list[str]:
        return [str(self.data / "videos" / "train"), str(self.data / "images")]

    def training_arguments(self, stage: str) -> list[str]:
        """Return the arguments of `adaptok train` for a stage other than the scorer, without its length."""
        kind = "generator" if stage == "generator" else "tokenizer"
        arguments = ["train", kind, "--config", str(HERE / f"{stage}.yaml")]
        if stage == "generator":
            arguments += ["--data.train", str(self.out / "shapes-tokens"), "--tokenizer", str(self.model("scorer"))]
            arguments += ["--initial", str(self.initial_generator)]
        else:
            initial = self.model("reconstruction") if stage == "perceptual" else self.initial
            arguments += ["--initial", str(initial), "--data.train", *self._training_data()]
            arguments += ["--data.validation", str(self.data / "videos" / "val")]
            arguments += ["--lpips-weights", str(self.lpips / "lpips_vgg.safetensors")]
            arguments += ["--lpips-alex-weights", str(self.lpips / "lpips_alex.safetensors")]
        if self.device == "cuda":
            values = {"precision": "bfloat16", **CUDA[stage]}
            arguments += ["--compile"]
            if stage != "generator":
                values |= {"data.workers": max(1, WORKERS // self.processes), "data.cache_gib": 6.0}
            for name, value in values.items():
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        return arguments

    def _batch(self, stage: str) -> int:
        """Return the number of clips per step, over all processes."""
        values = yaml.safe_load((HERE / f"{stage}.yaml").read_text(encoding="utf-8"))
        batch = CUDA[stage]["micro_batch_size"] if self.device == "cuda" else values["micro_batch_size"]
        return int(batch) * self.processes

    def _steps(self, stage: str, arguments: Sequence[str]) -> int:
        """Return the number of steps of a stage."""
        steps = self._planned(stage, self._batch(stage), lambda: self._clips_per_second(stage, arguments))
        print(f"{stage}: {steps} steps, as planned in {self.out / 'plan.json'}", file=sys.stderr)
        return steps

    def _planned(self, stage: str, batch: int, speed: Callable[[], float]) -> int:
        """Return the number of batches of a stage.

        It is chosen once and stored in OUT/plan.json, because the learning rate schedule depends on it. `speed`
        measures the clips per second of a stage with a time budget.
        """
        path = self.out / "plan.json"
        plan: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if stage not in plan:
            clips = self.clips.get(stage, CLIPS[stage])
            if stage in self.minutes and not self.dry_run:
                clips = round(speed() * self.minutes[stage] * 60)
            plan[stage] = max(1, clips // batch)
            if not self.dry_run:
                temporary = path.with_suffix(".partial")
                temporary.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
                temporary.replace(path)
        return plan[stage]

    def _targets_per_second(self) -> float:
        """Measure how fast targets are measured, by the first files of them. They are kept."""
        seconds = []
        for files in (1, 1 + CALIBRATION_FILES):  # the second call starts as the first, and keeps its file
            started = time.monotonic()
            self._measure_targets(files * TARGETS_PER_FILE)
            seconds.append(time.monotonic() - started)
        return (CALIBRATION_FILES - 1) * TARGETS_PER_FILE / max(1e-3, seconds[1] - seconds[0])

    def _clips_per_second(self, stage: str, arguments: Sequence[str]) -> float:
        """Measure the speed in the second half of a short run, after compilation and the first decoding of files."""
        folder = self.out / f"{stage}-speed"
        half = CALIBRATION_STEPS // 2
        options = ["--max-steps", str(CALIBRATION_STEPS), "--log-every", str(half), "--validate-every", "1000000"]
        self._execute([*arguments, *options, "--output", str(folder), "--ema-decay", "0"], True)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        speed = [line["clips_per_second"] for line in lines if "clips_per_second" in line][-1]
        print(f"{stage}: {speed:.2f} clips per second", file=sys.stderr)
        return float(speed)

    def _draw_tokens(self) -> None:
        """Draw the clips that the generator is trained on, and tokenize them. Both commands resume by themselves."""
        shapes = self.out / "shapes"
        self._execute(["data", "synthesize", str(shapes), "--clips", str(self.shapes)])
        options = ["--budget", str(GENERATOR_BUDGET), "--scope", "clip", "--device", self.device]
        tokens = str(self.out / "shapes-tokens")
        self._execute(["tokenize", str(shapes), "--output", tokens, "--model", str(self.model("scorer")), *options])

    def _report(self) -> None:
        """Compare adaptive and uniform lengths at three budgets, on the first clip of each validation video."""
        arguments = ["evaluate", "reconstruction", str(self.data / "videos" / "val")]
        arguments += ["--model", str(self.model("scorer"))]
        arguments += ["--protocol", "official", "--budget", "96", "384", "768"]
        arguments += ["--lpips-vgg", str(self.lpips / "lpips_vgg.safetensors")]
        arguments += ["--lpips-alex", str(self.lpips / "lpips_alex.safetensors")]
        metrics = ["psnr", "ssim", "lpips_vgg", "lpips_alex", "edge_ratio", "sharpness"]
        arguments += ["--metrics", *metrics, "--device", self.device, "--output", str(self.out / "report")]
        self._execute(arguments)

    def _execute(self, arguments: Sequence[str], training: bool = False) -> None:
        command = [sys.executable, "-m"]
        if training and self.processes > 1:
            command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes), "-m"]
        self._run([*command, "adaptok", *arguments], training)

    def _run_script(self, arguments: Sequence[str]) -> None:
        """Run a script of this folder."""
        self._run([sys.executable, str(HERE / arguments[0]), *arguments[1:]], True)

    def _run(self, command: Sequence[str], training: bool) -> None:
        print("+ " + " ".join(command), file=sys.stderr, flush=True)
        if self.dry_run:
            return
        environment = dict(os.environ)
        if self.device == "cpu" and training:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        result = subprocess.run(command, env=environment, check=False)
        if result.returncode:
            sys.exit(f"the command above ended with exit code {result.returncode}; start again to continue")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the recipe."""
    tyro.cli(Recipe, args=arguments, description=__doc__).run()


if __name__ == "__main__":
    main()

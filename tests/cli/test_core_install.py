"""Commands of the core installation, without the packages of the extras."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import as_file, files

import pytest

PROGRAM = """
import sys

MISSING = {"jinja2", "matplotlib", "torchmetrics", "scipy", "pyarrow", "accelerate", "ray", "gradio"}

class Hidden:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in MISSING else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
from adaptok.cli.main import main
main(sys.argv[1:])
"""
FLAGS = ("--device", "cpu", "--quiet", "--json")


def run(*arguments, code=0):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.mark.slow
def test_encode_decode_and_reconstruct(tmp_path):
    with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
        tokens = tmp_path / "tokens.adaptok"
        run("encode", clip, tokens, "--fit", "crop", "--budget", 192, "--stop", 1, *FLAGS)
        run("decode", tokens, tmp_path / "out.mp4", *FLAGS)
        report = run("reconstruct", clip, "--fit", "crop", "--budget", 192, "--stop", 1, *FLAGS)
        assert report["psnr"] > 15
        assert 0 < report["ssim"] < 1
        error = run("reconstruct", clip, "--stop", 1, "--plot", tmp_path / "x.png", *FLAGS, code=1)
        assert "pip install 'adaptok[eval]'" in error


def test_demo_names_its_extra():
    error = run("demo", code=1)
    assert error.startswith("adaptok: error: the demo needs gradio; install it with: pip install 'adaptok[demo]'")
    assert len(error.splitlines()) == 1

"""Execute the notebooks of this folder without a network, as `make notebooks` does.

    python examples/run_notebooks.py                                   # all of them, into out/notebooks
    python examples/run_notebooks.py examples/05_generate.ipynb --save # one, and replace the outputs saved in it

Every notebook runs in an empty folder that is removed afterwards. Needs the extra `notebooks`.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

EXAMPLES = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""Metadata of saved notebooks. The version of the interpreter is left out, so that it does not change them."""
CELL_TIMEOUT, START_TIMEOUT = 900, 300
"""Seconds after which a cell, or the start of a kernel, fails: far more than either takes on an idle machine."""
LARGEST_PNG = 40_000
"""Pictures above this number of bytes are saved as JPEG. Plots stay below it, frames of videos do not."""
JPEG_QUALITY = 85
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def execute(path: Path) -> NotebookNode:
    """Run a notebook in a new kernel, and return it with its outputs.

    Raises:
        CellExecutionError: A cell failed.
        CellTimeoutError: A cell took longer than `CELL_TIMEOUT`.
        DeadKernelError: The kernel crashed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")  # beside the profile of IPython
        work.mkdir()
        programs = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": programs, "IPYTHONDIR": folder, "HF_HUB_OFFLINE": "1"}
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            startup_timeout=START_TIMEOUT,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # a warning about local connections
            resources={"metadata": {"path": str(work)}},
        )
        client.execute(env=environment)
    return notebook


def tidy(notebook: NotebookNode) -> None:
    """Remove what differs between two runs, and make pictures small."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = _join_streams(cell.outputs)
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})
                if "data" in output:
                    _shrink(output.data)


def _join_streams(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Join consecutive outputs of the same stream, which a kernel splits at random."""
    joined: list[NotebookNode] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before is not None and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


def _shrink(data: NotebookNode) -> None:
    """Keep one form of a picture: PNG if it is small, otherwise JPEG."""
    if "image/png" not in data:
        return
    png = base64.b64decode(data["image/png"])
    data.pop("image/jpeg", None)
    if len(png) <= LARGEST_PNG:
        return
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    del data["image/png"]
    data["image/jpeg"] = base64.b64encode(file.getvalue()).decode() + "\n"


def run(path: Path, output: Path, save: bool) -> bool:
    """Execute a notebook, and write it to the folder `output`. Return whether all cells succeeded."""
    start = time.perf_counter()
    try:
        notebook = execute(path)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"{path.name} failed:\n{_ESCAPES.sub('', str(error))}", file=sys.stderr)
        return False
    tidy(notebook)
    for target in (output / path.name, *([path] if save else [])):
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
    print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return True


def main() -> int:
    """Run the program, and return its exit code: 1 if a cell failed."""
    parser = argparse.ArgumentParser(description="Execute notebooks without a network.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="Notebooks; by default all of this folder.")
    parser.add_argument("--output", type=Path, default=Path("out/notebooks"), help="Folder of the executed notebooks.")
    parser.add_argument("--save", action="store_true", help="Also replace the outputs saved in the notebooks.")
    arguments = parser.parse_args()
    notebooks = arguments.notebooks or sorted(EXAMPLES.glob("*.ipynb"))
    if missing := [path for path in notebooks if not path.is_file()]:
        parser.error(f"{missing[0]}: no such notebook")
    results = [run(path, arguments.output, arguments.save) for path in notebooks]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

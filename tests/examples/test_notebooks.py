"""The saved notebooks are complete and clean, and the script that executes them reports failures."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")  # extra notebooks
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "run_notebooks.py"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MAX_BYTES = 400_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|var|mnt|Users)/|[A-Z]:\\\\")


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(output):
    """The text of an output, without pictures."""
    data = output.get("data", {})
    parts = [output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/"))]
    return "\n".join(parts)


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def run_script(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_there_are_five_notebooks():
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_", "05_"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestSaved:
    def test_is_valid_and_executed_from_top_to_bottom(self, path):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        assert notebook.cells[0].source.startswith("# ")

    def test_outputs_have_pictures_and_no_errors(self, path):
        saved = outputs(nbformat.read(path, as_version=4))
        assert not [output for output in saved if output.output_type == "error" or output.get("name") == "stderr"]
        pictures = [
            value
            for output in saved
            for kind, value in output.get("data", {}).items()
            if kind in ("image/png", "image/jpeg")
        ]
        assert pictures
        for picture in pictures:
            Image.open(io.BytesIO(base64.b64decode(picture))).verify()

    def test_is_small_and_independent_of_the_machine(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert path.stat().st_size <= MAX_BYTES
        assert notebook.metadata == METADATA
        assert all(cell.metadata == {} for cell in notebook.cells)
        assert all(output.get("metadata", {}) == {} for output in outputs(notebook))
        texts = [*map(text_of, outputs(notebook)), *(cell.source for cell in notebook.cells)]
        assert not [text for text in texts if ABSOLUTE_PATH.search(text)]

    def test_links_lead_to_files(self, path):
        cells = nbformat.read(path, as_version=4).cells
        targets = re.findall(r"\]\(([^)#\s]+)", "".join(cell.source for cell in cells if cell.cell_type == "markdown"))
        assert targets
        assert not [target for target in targets if "://" not in target and not (path.parent / target).exists()]

    def test_the_documentation_links_to_it(self, path):
        assert f"(examples/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
        pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")]
        assert any(f"(../examples/{path.name})" in page for page in pages)


def test_a_failing_cell_is_reported(tmp_path):
    path = tmp_path / "failing.ipynb"
    write_notebook(path, "value = 1", "raise ValueError(f'value {value}, expected 2')")
    before = path.read_bytes()
    result = run_script(path, "--output", tmp_path / "out", "--save")
    assert result.returncode == 1
    assert "failing.ipynb failed" in result.stderr
    assert "value 1, expected 2" in result.stderr
    assert path.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_saved_outputs_are_tidy_and_the_same_each_time(tmp_path):
    path = tmp_path / "notebook.ipynb"
    write_notebook(
        path,
        "import sys; print('a'); sys.stdout.flush(); print('b'); open('file.txt', 'w').close()",
        "import random; from PIL import Image; noise = random.Random(0).randbytes(3 * 128 * 384)",
        "Image.frombytes('RGB', (384, 128), noise)",
        "Image.new('RGB', (64, 64), 'red')",
    )
    assert run_script(path, "--output", tmp_path / "out", "--save").returncode == 0
    first = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == METADATA
    assert notebook.cells[0].outputs[0].text == "a\nb\n"
    assert {"image/jpeg", "text/plain"} == set(notebook.cells[2].outputs[0].data)  # a large picture
    assert {"image/png", "text/plain"} == set(notebook.cells[3].outputs[0].data)
    assert (tmp_path / "out" / path.name).read_bytes() == first
    assert not (tmp_path / "file.txt").exists()
    assert run_script(path, "--output", tmp_path / "out", "--save").returncode == 0
    assert path.read_bytes() == first


def test_a_missing_notebook_is_an_error(tmp_path):
    result = run_script(tmp_path / "none.ipynb")
    assert result.returncode == 2
    assert "none.ipynb: no such notebook" in result.stderr

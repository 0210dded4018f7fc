"""Rules for the structure of the code, checked on its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "adaptok"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A package may import packages of lower layers only, so there can be no cycle.
LAYERS = (
    {"ops", "utils", "config"},
    {"allocation", "video", "metrics", "models"},
    {"checkpoints", "data"},
    {"codec"},
    {"generation", "tokenization", "export"},
    {"evaluation"},
    {"training"},
    {"benchmark", "demo"},
    {"cli"},
)
# Packages that may import even less.
ONLY = {"allocation": {"config"}, "models": {"config", "ops"}, "metrics": {"config", "utils"}}

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def trees(paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    for path in paths:
        yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every import in a module, also inside functions: the module's name, and the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which package is imported"
            yield node.module or "", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()


def imported_packages(tree: ast.Module) -> set[str]:
    """Packages of adaptok that a module imports; "" is adaptok itself."""
    result = set()
    for module, names in imports(tree):
        if module == "adaptok":
            result |= {name if (PACKAGE / name).is_dir() else "" for name in names or ("",)}
        elif module.startswith("adaptok."):
            result.add(module.split(".")[1])
    return result


def test_top_level_holds_packages_only():
    names = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    packages = set.union(*LAYERS) | {"assets"}
    assert names == packages | {"__init__.py", "__main__.py", "py.typed"}


def test_packages_import_lower_layers_only():
    level = {package: index for index, layer in enumerate(LAYERS) for package in layer}
    wrong = []
    for path, tree in trees([path for path in MODULES if path.parent != PACKAGE]):
        package = path.relative_to(PACKAGE).parts[0]
        own = {package, ""} if package == "cli" else {package}  # --version
        for imported in imported_packages(tree) - own:
            allowed = ONLY.get(package, {name for name in level if level[name] < level[package]})
            if imported not in allowed and (package, imported) != ("cli", ""):  # the version
                wrong.append(f"{path.relative_to(ROOT)} imports adaptok.{imported}".rstrip("."))
    assert not wrong


def test_only_the_command_line_prints():
    wrong = []
    for path, tree in trees([path for path in MODULES if PACKAGE / "cli" not in path.parents]):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


def test_modules_are_short():
    counts = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {name for name, count in counts.items() if count > MAX_MODULE_LINES}


def test_functions_are_short():
    result = set()
    for path, tree in trees(MODULES):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                    result.add(f"{path.relative_to(PACKAGE)}:{node.name}")
    assert not result


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("paths", [MODULES, TESTS], ids=["src", "tests"])
def test_private_names_are_not_imported(paths):
    result = set()
    for path, tree in trees(paths):
        for module, names in imports(tree):
            if module.split(".")[0] in ("adaptok", "tests", "experiments", "benchmarks"):
                wrong = {name for name in (*module.split("."), *names) if private(name)}
                result |= {f"{path.relative_to(ROOT)}:{name}" for name in wrong}
    assert not result


def test_tests_use_no_private_attributes():
    """Also in strings such as those that monkeypatch takes: "adaptok.module._name"."""
    public = {"_exit", "_replace"}  # of os and of named tuples
    result = set()
    for path, tree in trees([path for path in TESTS if path != Path(__file__)]):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in public:
                result.add(f"{path.relative_to(ROOT)}:{node.attr}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("adaptok."):
                result |= {f"{path.relative_to(ROOT)}:{word}" for word in node.value.split(".") if private(word)}
    assert not result

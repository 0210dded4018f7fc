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
    public = {"_exit", "_replace", "_make_wrapper_subclass"}  # of os, of named tuples, and of classes of tensors
    result = set()
    for path, tree in trees([path for path in TESTS if path != Path(__file__)]):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in public:
                result.add(f"{path.relative_to(ROOT)}:{node.attr}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("adaptok."):
                result |= {f"{path.relative_to(ROOT)}:{word}" for word in node.value.split(".") if private(word)}
    assert not result


RUNNING = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "torch.jit.load"}
"""Calls that run what they are given."""
PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SAFE_YAML = {"yaml.safe_load", "yaml.safe_dump", "yaml.dump", "yaml.YAMLError"}
SAFE_ARGUMENTS = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
EXCEPTIONS = {
    ("metrics/fvd.py", "torch.jit.load"),  # TorchScript, only with the published SHA-256 or one that the user gives
    ("metrics/fvd.py", "pickle"),  # an unpickler of arrays alone, for the published archive, by its SHA-256
    ("checkpoints/official_training.py", "pickle"),  # its exception
}
"""What is allowed nevertheless. SECURITY.md describes these."""


def dotted(node: ast.expr) -> str:
    """The name of what is called, such as "torch.load"."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.Module) -> Iterator[str]:
    """Calls and modules that could run code which a file or a user contains."""
    yield from (module for module, _ in imports(tree) if module.split(".")[0] in PICKLES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node).startswith("yaml.") and dotted(node) not in SAFE_YAML:
            yield dotted(node)
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {word.arg: word.value for word in node.keywords}
        if name in RUNNING or "shell" in given:
            yield name
        if name in SAFE_ARGUMENTS:
            argument, value = SAFE_ARGUMENTS[name]
            actual = given.get(argument)
            if not (isinstance(actual, ast.Constant) and actual.value is value):
                yield name


def test_nothing_runs_the_content_of_files():
    """No eval, no shell, no pickle, no unsafe YAML, and torch.load and np.load only with their safe arguments."""
    found = {
        (path.relative_to(PACKAGE).as_posix(), danger) for path, tree in trees(MODULES) for danger in dangers(tree)
    }
    assert found == EXCEPTIONS


@pytest.mark.parametrize(
    "line",
    [
        *("eval('1')", "exec(text)", "import pickle", "from pickle import loads", "yaml.load(text)", "os.system('ls')"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)", "subprocess.run(x, shell=True)"),
        *("yaml.unsafe_load(text)", "run(x, shell=y)", "torch.jit.load(path)"),
    ],
)
def test_dangers_are_found(line):
    assert list(dangers(ast.parse(line)))


def test_safe_calls_are_not_dangers():
    safe = "model.eval(); yaml.safe_load(x); torch.load(x, weights_only=True); np.load(x, allow_pickle=False)"
    assert not list(dangers(ast.parse(safe)))

"""Optional dependencies: the extras of this package, and the advice to install one."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, *, extra: str, purpose: str) -> None:
    """Check that a module of an extra is installed.

    Args:
        module: Importable name, such as "pyarrow".
        extra: Extra of adaptok that installs it.
        purpose: Feature that needs it, as the subject of a sentence.

    Raises:
        ImportError: The module is missing. The message says how to install it.
    """
    if find_spec(module) is None:
        raise ImportError(
            f"{purpose} needs {module}; install it with: pip install 'adaptok[{extra}]'"
            f" (in a checkout: pip install '.[{extra}]')"
        )

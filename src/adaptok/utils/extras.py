"""Optional dependencies: the extras of this package, and the advice to install one."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, *, extra: str, purpose: str) -> None:
    """Check that an importable module, which an extra of this package installs, is there.

    `purpose` names the feature that needs it, as the subject of a sentence.

    Raises:
        ImportError: The module is missing. The message says how to install it.
    """
    if find_spec(module) is None:
        raise ImportError(
            f"{purpose} needs {module}; install it with: pip install 'adaptok[{extra}]'"
            f" (in a checkout: pip install '.[{extra}]')"
        )

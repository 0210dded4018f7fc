"""Optional dependencies: the extras of this package, and the advice to install one."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, *, extra: str, purpose: str) -> None:
    """Check that an importable module, which an extra of this package installs, is there.

    `purpose` names the feature that needs it, as the subject of a sentence.

    Raises:
        ImportError: The module is missing. The message says how to install it.
    """
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # a package above the module is missing
        spec = None
    if spec is None or spec.origin is None:  # also an empty folder that an uninstalled package left
        raise missing(module, extra=extra, purpose=purpose)


def missing(module: str, *, extra: str, purpose: str, reason: str = "") -> ImportError:
    """Return the error of `require`, with the reason why the module cannot be imported, if it is there."""
    return ImportError(
        f"{purpose} needs {module}{reason and f' ({reason})'}; install it with: pip install 'adaptok[{extra}]'"
        f" (in a checkout: pip install '.[{extra}]')"
    )

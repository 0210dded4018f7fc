"""All fuzz targets by name."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.harness import Target

TARGETS = {
    "token_files": "TokenFiles",
    "token_datasets": "TokenDatasets",
    "model_folders": "ModelFolders",
    "configurations": "Configurations",
    "manifests": "Manifests",
    "videos": "Videos",
    "run_folders": "RunFolders",
}
"""Class of each target, in the module of the target's name."""


def load_target(name: str) -> Target:
    """Import a target."""
    target: Target = getattr(import_module(f"tests.fuzz.{name}"), TARGETS[name])()
    return target

"""Optional packages that are missing, or of which only an empty folder is left."""

from __future__ import annotations

import pytest

from adaptok.utils.extras import require


def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch):
    (tmp_path / "uninstalled" / "__pycache__").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("uninstalled", "uninstalled.part", "not_there", "not_there.part"):
        with pytest.raises(ImportError, match=rf"^plots needs {name}; install it with: pip install 'adaptok\[eval\]'"):
            require(name, extra="eval", purpose="plots")
    require("pytest", extra="dev", purpose="tests")

"""`adaptok weights`."""

from __future__ import annotations

import json

import pytest

from adaptok.cli.main import main
from adaptok.metrics.pretrained import Published
from adaptok.metrics.registry import METRIC_WEIGHTS
from adaptok.utils.files import sha256_of


def test_list_and_fetch(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = tmp_path / "there.bin"
    source.write_bytes(b"weights")
    monkeypatch.setitem(METRIC_WEIGHTS, "i3d", Published("i3d.bin", source.as_uri(), sha256_of(source), 51))
    main(["weights", "fetch", "i3d", "--json"])
    assert json.loads(capsys.readouterr().out) == {"i3d": str(tmp_path / "cache" / "i3d.bin")}
    main(["weights", "list", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {name for name, row in rows.items() if row["path"]} == {"i3d"}
    assert rows["lpips-vgg"]["sha256"].startswith("397923af")
    main(["weights", "list"])
    assert "lpips-alex" in capsys.readouterr().out
    source.unlink()
    (tmp_path / "cache" / "i3d.bin").unlink()
    for name, message in (("i3d", f"save it as {tmp_path}"), ("lpips-vg", "did you mean lpips-vgg")):
        with pytest.raises(SystemExit) as stop:
            main(["weights", "fetch", name])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err

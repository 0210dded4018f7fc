"""Which checkpoint is resumed from: the newest whole and usable one, with a warning about others."""

from __future__ import annotations

import json

import pytest
import torch

from adaptok.cli.main import main
from adaptok.training.checkpoint_choice import choose_checkpoint, find_damage
from adaptok.training.checkpointing import RunState, list_checkpoints, save_checkpoint
from adaptok.utils.files import WriteError
from tests.helpers.disk import limited_files
from tests.helpers.training import config, everything, train

SHORT = {"max_steps": 4, "checkpoint_every": 1, "validate_every": 4, "keep_checkpoints": 3, "trackers": []}


def save(run, step, value=0.0):
    tensors = {name: {"x": torch.full((100,), value + step)} for name in ("model", "optimizer")}
    return save_checkpoint(run, tensors, RunState(step, {}))


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def exchange(path):
    path.write_bytes((path.parents[1] / "step-00000001" / path.name).read_bytes())


@pytest.mark.parametrize("damage", [halve, flip, exchange, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_damaged_checkpoints_are_noticed(tmp_path, damage, name):
    for step in (1, 2, 3):
        checkpoint = save(tmp_path, step)
    assert choose_checkpoint(tmp_path) == (checkpoint, (), None)
    damage(checkpoint / name)
    choice = choose_checkpoint(tmp_path)
    assert choice.checkpoint == tmp_path / "checkpoints" / "step-00000002"
    assert choice.damaged == (checkpoint,)
    assert name in choice.warning
    assert choice.warning.endswith(f"; {choice.checkpoint} is used instead")
    assert "\n" not in choice.warning


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_old_checkpoints_without_checksums_are_parsed(tmp_path, name):
    checkpoint = save(tmp_path, 1)
    (checkpoint / "SHA256SUMS").unlink()
    assert find_damage(checkpoint) is None
    halve(checkpoint / name)
    assert "damaged" in find_damage(checkpoint)
    with pytest.raises(ValueError, match=r"every checkpoint is damaged .*; restore one from a copy"):
        choose_checkpoint(tmp_path)


def test_a_run_resumes_from_the_newest_whole_checkpoint(tmp_path, capsys):
    train(config(tmp_path, "tokenizer", **SHORT), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, "tokenizer", **SHORT), tmp_path / "run", stop_at=4)
    newest = list_checkpoints(tmp_path / "run")[-1]
    halve(newest / "model.safetensors")
    main(["export", str(tmp_path / "run"), str(tmp_path / "exported"), "--json"])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["step"] == 2
    assert "model.safetensors: not the file that was written" in captured.err
    train(config(tmp_path, "tokenizer", **SHORT), tmp_path / "run")
    whole, run = everything(tmp_path / "whole"), everything(tmp_path / "run")
    assert all(torch.equal(tensor, run[0][name]) for name, tensor in whole[0].items())
    assert whole[1] == run[1]
    assert (tmp_path / "run" / "checkpoints" / f"damaged-{newest.name[5:]}").exists()


def test_a_checkpoint_that_leads_to_no_finite_loss_is_set_aside(tmp_path):
    huge = {"optimizer": {"warmup_steps": 0, "lr": 1e30}}
    with pytest.raises(FloatingPointError, match=r"no usable checkpoint; .* start a new run with a lower") as error:
        train(config(tmp_path, "tokenizer", **SHORT, **huge), tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["diverged-00000001"]
    assert f"renamed to {checkpoints / 'diverged-00000001'}" in str(error.value)
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(tmp_path / "run"), str(tmp_path / "exported")])
    assert not (tmp_path / "exported").exists()
    train(config(tmp_path, "tokenizer", **SHORT), tmp_path / "run")  # the folder may be used again


def test_old_checkpoints_stay_until_a_step_has_followed_the_newest(tmp_path):
    options = config(tmp_path, "tokenizer", **{**SHORT, "keep_checkpoints": 1})
    with pytest.raises(
        FloatingPointError, match=r"loss of step 3 .* usable checkpoint is .*step-00000002; check the data"
    ):
        train(options, tmp_path / "run", bad=7)  # the second clip of step 3
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002"]
    train(options, tmp_path / "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000004"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="after step 2, x of model is infinite or not a number"):
        save(tmp_path, 2, torch.inf)
    assert not (tmp_path / "checkpoints").exists()


def test_a_full_disk_leaves_the_checkpoints_before(tmp_path):
    save(tmp_path, 1)
    with limited_files(300), pytest.raises(WriteError, match=r"step-00000002: file too large; free some space"):
        save(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_checkpoints_that_old_versions_marked_as_exported(tmp_path):
    checkpoint = save(tmp_path, 1)
    assert not RunState.load(checkpoint).exported
    (checkpoint / "exported").touch()
    assert RunState.load(checkpoint).exported
    assert find_damage(checkpoint) is None
    (checkpoint / "exported").unlink()
    values = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps(values | {"exported": True}))
    assert RunState.load(checkpoint).exported

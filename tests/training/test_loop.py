"""The training loop: a run that was stopped is the run that was not; a bad number changes nothing."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from adaptok import AdapTok
from adaptok.cli.main import main
from adaptok.config.lengths import FixedLengths, MixtureLengths, NormalLengths, UniformLengths
from adaptok.metrics.distortion import multiscale_error
from adaptok.training.checkpointing import list_checkpoints
from adaptok.training.objectives.lengths import draw_lengths
from adaptok.training.objectives.perceptual import LpipsNetworks
from adaptok.training.objectives.scorer import ScorerObjective
from tests.helpers.models import small_config
from tests.helpers.training import assert_resumes, config, everything, train


@pytest.mark.parametrize("stage", ["tokenizer", "scorer"])
def test_a_run_that_was_stopped_is_the_run_that_was_not(tmp_path, stage):
    options = config(tmp_path, stage)
    metrics = assert_resumes(options, tmp_path, (3, 5, 10))
    assert [line["step"] for line in metrics if "loss" in line] == list(range(1, 13))
    main(["export", str(tmp_path / "parts"), str(tmp_path / "exported"), "--quiet"])
    exported, finished = (load_file(tmp_path / name / "model.safetensors") for name in ("exported", "parts/model"))
    assert all(torch.equal(tensor, finished[name]) for name, tensor in exported.items())
    AdapTok.from_pretrained(tmp_path / "exported", device="cpu")


def test_half_made_checkpoints_are_not_taken(tmp_path):
    options = config(tmp_path, "tokenizer", max_steps=4, checkpoint_every=2)
    train(options, tmp_path / "run")
    torn = tmp_path / "run" / "checkpoints" / ".writing-00000006"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002", "step-00000004"]
    train(options, tmp_path / "run")


def test_accumulation_equals_a_large_batch(tmp_path):
    plain = {"lengths": {"kind": "uniform", "min": 8, "max": 8}, "max_steps": 5, "losses": {"quantizer": 0}}
    model = small_config().model_dump() | {"scorer": None}
    for name, batch, accumulation in (("one", 8, 1), ("four", 2, 4)):
        train(
            config(
                tmp_path,
                "tokenizer",
                model=model,
                micro_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                **plain,
            ),
            tmp_path / name,
        )
    one, four = everything(tmp_path / "one")[0], everything(tmp_path / "four")[0]
    for name in (n for n in one if n.startswith("model.")):
        torch.testing.assert_close(four[name], one[name], atol=1e-5, rtol=0)


def test_layers_that_are_computed_again_give_the_same_run(tmp_path):
    for name, again in (("kept", False), ("again", True)):
        train(config(tmp_path, "tokenizer", max_steps=4, activation_checkpointing=again), tmp_path / name)
    kept, again = everything(tmp_path / "kept")[0], everything(tmp_path / "again")[0]
    for name in (n for n in kept if n.startswith("model.")):
        torch.testing.assert_close(again[name], kept[name], atol=1e-6, rtol=0)


def test_a_bad_number_stops_before_the_weights_change(tmp_path):
    options = config(tmp_path, "tokenizer")
    train(config(tmp_path, "tokenizer", max_steps=12), tmp_path / "good")
    with pytest.raises(FloatingPointError, match=r"step 7 .*l1"):
        train(options, tmp_path / "bad", bad=15)  # the second clip of step 7
    assert [path.name for path in list_checkpoints(tmp_path / "bad")] == ["step-00000004"]
    train(options, tmp_path / "bad")  # the file was mended
    good, mended = everything(tmp_path / "good")[0], everything(tmp_path / "bad")[0]
    assert all(torch.equal(tensor, mended[name]) for name, tensor in good.items())


def test_another_configuration_does_not_continue_a_run(tmp_path):
    train(config(tmp_path, "tokenizer", max_steps=2), tmp_path / "run")
    with pytest.raises(ValueError, match="another configuration"):
        train(config(tmp_path, "tokenizer", max_steps=3), tmp_path / "run")


def test_targets_are_the_distortions_of_decoded_blocks(tmp_path, clips):
    options = config(tmp_path, "scorer")
    model = AdapTok.from_pretrained(options.initial, device="cpu").model
    torch.nn.init.normal_(model.tokenizer.to_pixels.weight, std=0.3)
    objective = ScorerObjective(model, options, LpipsNetworks())
    tokenizer = model.tokenizer
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    with torch.no_grad():
        for earlier in ([], [3], [8, 1, 5]):
            block = len(earlier)
            seen = clips[:, :, : 2 * (block + 1)]
            found = objective.measure_distortions(seen, inputs[:, : block + 1], earlier)
            for column, length in enumerate(range(2, 9, 2)):
                decoded = tokenizer.decode(inputs[:, : block + 1], [[*earlier, length]] * 3).clamp(0, 1)
                error = multiscale_error(decoded, seen)[:, 2 * block :].mean(1)
                torch.testing.assert_close(found[:, column], error, atol=1e-6, rtol=1e-5)


def test_laws_of_lengths_keep_their_bounds():
    uniform, normal = UniformLengths(min=2, max=4), NormalLengths(mean=6, std=9, min=5, max=8)
    mixture = MixtureLengths(components=(uniform, normal, FixedLengths(length=7)), weights=(1, 1, 0))
    generator = torch.Generator().manual_seed(0)
    rows = draw_lengths(mixture, 400, 4, generator)
    low = [row for row in rows if max(row) <= 4]
    assert 150 < len(low) < 250  # a clip follows one law
    assert {length for row in low for length in row} == {2, 3, 4}
    assert {length for row in rows if row not in low for length in row} == {5, 6, 7, 8}
    assert draw_lengths(FixedLengths(length=3), 2, 4, generator) == [[3] * 4] * 2
    assert all(row[0] == 1 for row in draw_lengths(UniformLengths(min=0, max=1), 9, 4, generator))

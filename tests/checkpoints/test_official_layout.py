"""The official layout: written back exactly, refused by name where it is not implemented, and read from checkpoints."""

from __future__ import annotations

import json
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adaptok import CheckpointError
from adaptok.checkpoints.model_folder import read_folder, read_generator, write_folder, write_official_folder
from adaptok.cli.main import main
from adaptok.config.generator import GENERATOR_SIZES
from adaptok.config.model import ModelConfig, PriorConfig, ScorerConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.config.ucf101 import UCF101_CLASSES
from adaptok.generation import Generator
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model

DATA = Path(__file__).parents[1] / "fixtures"
UNUSED = {"device", "token_select_num", "rope_base", "max_batch_size", "num_classes"}
"""Fields that the official program ignores, or that do not concern the model."""


def convert(*arguments):
    main(["convert", *map(str, arguments), "--quiet"])


def document_of(folder):
    document = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in document.items() if name not in UNUSED}


@pytest.mark.parametrize("name", ["official", "generator", "predictor"])
def test_converted_back_is_the_same(tmp_path, name):
    convert(DATA / name, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "official")
    original, back = (load_file(folder / "model.safetensors") for folder in (DATA / name, tmp_path / "back"))
    assert original.keys() == back.keys()
    for key, tensor in original.items():
        assert (back[key].shape, back[key].dtype) == (tensor.shape, tensor.dtype)
        assert back[key].numpy().tobytes() == tensor.numpy().tobytes()
    assert document_of(tmp_path / "back") == document_of(DATA / name)


def own_config(**changes):
    stack = {"width": 16, "depth": 1, "heads": 2}
    tokenizer = {"frames": 4, "size": 8, "patch_size": 4, "temporal_patch_size": 2, "latents": 4}
    quantizer = {"kind": "vector", "size": 8, "dim": 4}
    values = {**tokenizer, "encoder": stack, "decoder": stack, "quantizer": quantizer, **changes}
    scorer = ScorerConfig(**stack, length_step=2, mean=0.3, std=0.2)
    prior = PriorConfig(width=256, depth=6, heads=4, sampling_peak=0.4)
    return ModelConfig(tokenizer=TokenizerConfig.parse(values), scorer=scorer, prior=prior)


def test_own_models_are_written_with_rescaled_scores(tmp_path):
    model = Model(own_config()).eval()
    write_official_folder(model, tmp_path)
    back = read_folder(tmp_path).build()
    assert back.config.tokenizer == model.config.tokenizer
    assert back.config.prior == model.config.prior
    assert back.config.scorer == ScorerConfig(width=16, depth=1, heads=2, length_step=2)
    clips = torch.rand(2, 3, 4, 8, 8)
    with torch.no_grad():
        distortions = []
        for one in (model, back):
            encoded = one.tokenizer.encode(clips)
            inputs = one.tokenizer.project_codes(one.tokenizer.quantize(encoded).codes)
            scores = one.scorer(encoded, inputs, [[4, 4], [4, 4]])
            distortions.append(one.scorer.denormalize(scores))
    torch.testing.assert_close(*distortions)


def test_options_that_the_official_program_lacks_are_refused(tmp_path):
    config = own_config(learned_positions=True, encoder={"width": 16, "depth": 1, "heads": 2, "rope": True})
    with pytest.raises(ValueError, match=r"encoder with rope True, tokenizer.learned_positions; write the layout"):
        write_official_folder(Model(config), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("official", "encoder_attn_type", "full_bi_attn"),
        ("official", "decoder_attn_type", "full_causal_type3"),
        ("official", "scorer_attn_type", "none"),
        ("official", "learned_encoder_patch_pe", True),
        ("official", "use_decoder_latent_token_type_embed", True),
        ("official", "transformer_name", "transformer_encoder_fused"),
        ("official", "bottleneck.args.norm", "layer"),
        ("official", "bottleneck.args.regularizer.name", "fsq"),
        ("official", "bottleneck.args.regularizer.args.eval_deterministic", False),
        ("official", "mask_generator.tot_groups", 2),
        ("generator", "n_kv_head", 2),
        ("generator", "use_fixed_pe", True),
        ("generator", "norm_eps", 1e-6),
    ],
)
def test_unsupported_values_are_refused_by_name(tmp_path, name, field, value):
    document = json.loads((DATA / name / "config.json").read_text())
    *path, last = field.split(".")
    inner = document
    for part in path:
        inner = inner[part]
    inner[last] = value
    (tmp_path / "config.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").symlink_to(DATA / name / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{field} {value!r} is not supported, expected"):
        (read_generator if name == "generator" else read_folder)(tmp_path)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("official", "temporal_patch_size", 0, "temporal_patch_size 0, expected 1 to the"),
        ("official", "bottleneck", None, "a field has a value of the wrong type"),
        ("official", "encoder_depth", 10**9, "encoder.depth: Input should be less than or equal to 1024"),
        ("official", "encoder_depth", "two", "encoder.depth: Input should be a valid integer"),
        ("generator", "dim", 10**9, "width: Input should be less than or equal to 65536"),
        ("generator", "tot_blocks", 0, "is not a multiple of tot_blocks 0"),
        ("generator", "max_seq_len", None, "a field has a value of the wrong type"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, name, field, value, message):
    document = json.loads((DATA / name / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(document | {field: value}))
    (tmp_path / "model.safetensors").symlink_to(DATA / name / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as error:
        (read_generator if name == "generator" else read_folder)(tmp_path)
    assert "\n" not in str(error.value)


def test_a_prior_without_its_second_round_is_refused(tmp_path):
    write_official_folder(Model(own_config()), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"use_mix_ss": true', '"use_mix_ss": false'))
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=r"prior_model.use_mix_ss False is not supported, expected True"):
        read_folder(tmp_path)


@pytest.fixture
def easydict(monkeypatch):
    """The class EasyDict of the official program: a dictionary whose items are attributes, too."""

    class EasyDict(dict):
        def __init__(self, values):
            super().__init__({name: EasyDict(v) if isinstance(v, dict) else v for name, v in values.items()})
            self.__dict__.update(self)

    module = types.ModuleType("easydict")
    module.EasyDict = EasyDict
    EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
    monkeypatch.setitem(sys.modules, "easydict", module)
    return EasyDict


def save_checkpoint(path, name, document, state, wrapper=dict, **other):
    """Save a checkpoint as the official training does."""
    model = {"name": name, "args": wrapper(document), "sd": state}
    states = {"numpy_rng_state": np.random.RandomState(0).get_state(), "python_rng_state": random.getstate()}
    torch.save({"model": model, "epoch": 3, "rng_states_per_rank": {0: states}, **other}, path)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
def test_checkpoints_of_tokenizers(tmp_path, easydict, prefix, monkeypatch):
    document = json.loads((DATA / "official" / "config.json").read_text())
    state = load_file(DATA / "official" / "model.safetensors")
    path = tmp_path / "epoch-last.pth"
    config = easydict({"model": {"args": document}})
    save_checkpoint(path, "adaptok", document, {prefix + k: v for k, v in state.items()}, easydict, cfg=config)
    monkeypatch.delitem(sys.modules, "easydict")
    convert(path, tmp_path / "model")
    assert read_folder(tmp_path / "model").hash() == read_folder(DATA / "official").hash()


def test_checkpoints_of_generators(tmp_path, monkeypatch):
    monkeypatch.setitem(GENERATOR_SIZES, "XS", (64, 2, 4))
    document = json.loads((DATA / "generator" / "config.json").read_text())
    args = {name: value for name, value in document.items() if name not in ("dim", "n_layer", "n_head")}
    save_checkpoint(tmp_path / "x.pth", "llama-abs-XS", args, load_file(DATA / "generator" / "model.safetensors"))
    convert(tmp_path / "x.pth", tmp_path / "model", "--layout", "official")  # the old name of --to
    assert document_of(tmp_path / "model") == document_of(DATA / "generator")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_checkpoints_is_not_run(tmp_path, capsys):
    path, trace = tmp_path / "bad.pth", tmp_path / "trace"
    save_checkpoint(path, "adaptok", {}, {}, other=Malicious(trace))
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"state": 1}, tmp_path / "other.pth")
    for name, message in [
        ("bad", "which is refused because reading it could run code"),
        ("text", "damaged, or not a checkpoint"),
        ("other", "expected a checkpoint of the official training"),
        ("missing", "no such file"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            convert(tmp_path / f"{name}.pth", tmp_path / "out")
        captured = capsys.readouterr().err.strip()
        assert message in captured
        assert len(captured.splitlines()) == 1, captured
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


def test_class_names_of_ucf101_are_known(tmp_path):
    assert list(UCF101_CLASSES) == sorted(set(UCF101_CLASSES))
    generator = read_generator(DATA / "generator")
    model = GeneratorModel(generator.config.model_copy(update={"classes": 101}))
    write_official_folder(model, tmp_path)
    again = Generator(read_generator(tmp_path))
    assert again.classes(["ApplyEyeMakeup", "HandStandPushups", "YoYo", 5]).tolist() == [0, 36, 100, 5]
    write_folder(again.model, tmp_path / "ours")
    assert read_generator(tmp_path / "ours").config.labels == UCF101_CLASSES

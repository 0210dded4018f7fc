"""Configuration of models: errors that name the remedy, old names, and derived sizes."""

from __future__ import annotations

import pytest

from adaptok.config.base import read_yaml
from adaptok.config.discriminator import PatchDiscriminatorConfig, TransformerDiscriminatorConfig
from adaptok.config.generator import GeneratorConfig
from adaptok.config.model import ModelConfig, ScorerConfig, base
from adaptok.config.tokenizer import ScalarQuantizerConfig, TokenizerConfig
from adaptok.config.training import TrainingConfig
from adaptok.config.transformer import StackConfig, TransformerConfig

GENERATOR = {"width": 32, "depth": 2, "heads": 2, "codebook_size": 60}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokeniser": {}}, r"^source: unknown field 'tokeniser', did you mean 'tokenizer'\?$"),
        ({"tokenizer": {"latent": 3}}, r"unknown field 'tokenizer.latent', did you mean 'latents'\?"),
        ({"tokenizer": {"quantizer": {"kind": "scalar", "level": [2]}}}, "did you mean 'levels'"),
        ({"scorer": {"colour": 1}}, "expected one of .*'length_step'.*'probe_lengths'"),
        ({"tokenizer": {"latents": 0}}, "tokenizer.latents: Input should be greater than 0, got 0"),
        ({"tokenizer": {"size": 100}}, "size 100 is not a multiple of patch_size 8"),
        ({"tokenizer": {"frames": 10}}, "frames 10 is not a multiple of temporal_patch_size 4"),
        ({"tokenizer": {"decoder_window": 17}}, "decoder_window 17, expected an even number from patch_size 8"),
        ({"tokenizer": {"stem": {"channels": [8] * 4}}}, "stem has 4 levels, but patch_size 8 cannot be halved that"),
        ({"tokenizer": {"quantizer": {"kind": "vector", "size": 70000}}}, "70000 entries does not fit ids of 16 bits"),
        ({"tokenizer": {"encoder": {"width": 10, "depth": 1, "heads": 3}}}, "width 10 is not a multiple of heads 3"),
        ({"scorer": {"length_step": 100}}, "latents 512 is not a multiple of the scorer's length_step 100"),
        ({"scorer": {"distortion": "mse", "probe_lengths": [65]}}, "expected rising multiples of length_step 64"),
        ({"scorer": {"distortion": "mse", "probe_lengths": [1024]}}, "probe length 1024 is above the 512 latents"),
        ({"scorer": {"probe_lengths": [64]}}, "lpips needs weights of its own; change distortion"),
        ({"scorer": {"lambdas": [[1, 2.0], [2, 3.0]]}}, "expected positive lambdas that fall as tokens rise"),
        ({"scorer": {"lambdas": [[1, 0.0]]}}, "expected positive lambdas"),
        ({"prior": {}, "tokenizer": {"quantizer": {"kind": "scalar"}}}, "a prior needs the vector quantizer"),
    ],
)
def test_errors_have_one_line_with_the_remedy(values, message):
    with pytest.raises(ValueError, match=message) as error:
        ModelConfig.parse(values, "source")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "classes 0 and condition_ids 0: give one of them"),
        ({"classes": 3, "condition_ids": 5}, "give one of them"),
        ({"classes": 3, "labels": ("cat",)}, "1 labels for 3 classes"),
        ({"condition_ids": 512, "first_block": 2}, "first_block 2 needs 1024 ids to copy, condition_ids is 512"),
        ({"classes": 3, "levels": (5, 4)}, "expected a product of 60"),
        ({"classes": 3, "mixture": 2}, "mixture 2 needs levels"),
    ],
)
def test_generators_need_consistent_sizes(change, message):
    with pytest.raises(ValueError, match=message):
        GeneratorConfig.parse({**GENERATOR, **change})


def test_several_errors_are_listed():
    with pytest.raises(ValueError, match=r"tokenizer\.latents: .*, got -1; unknown field 'nam', did you mean 'name'"):
        ModelConfig.parse({"nam": "x", "tokenizer": {"latents": -1}})


def test_old_names_are_read_and_new_ones_written():
    old = {"distortion": "mse", "step": 32, "anchors": [32, 64], "prices": [[1, 2.0], [2, 1.0]]}
    new = {"distortion": "mse", "length_step": 32, "probe_lengths": (32, 64), "lambdas": ((1, 2), (2, 1))}
    config = ScorerConfig.parse(old)
    assert config == ScorerConfig(**new)
    assert new.items() <= config.model_dump().items()
    assert not {"step", "anchors", "prices"} & config.model_dump().keys()
    assert ScorerConfig.parse(config.model_dump()) == config


def test_old_names_of_discriminators():
    old = {"learning_rate": 1e-4, "update_interval": 2, "real_least": 0.8, "fake_most": 0.2}
    discriminator = TrainingConfig.model_fields["discriminator"]
    config = TransformerDiscriminatorConfig.parse(old)
    assert (config.lr, config.update_interval, config.real_min, config.fake_max) == (1e-4, 2, 0.8, 0.2)
    assert TransformerDiscriminatorConfig.parse(config.model_dump()) == config
    assert isinstance(discriminator.default, TransformerDiscriminatorConfig)


def test_an_old_name_beside_the_new_one_is_refused():
    with pytest.raises(ValueError, match="unknown field 'step'"):
        ScorerConfig.parse({"step": 32, "length_step": 64})


def test_sizes_are_derived():
    c = TokenizerConfig(encoder_window=12)
    assert (c.blocks, c.grid, c.patches, c.input_dim, c.output_dim) == (4, 16, 256, 3 * 4 * 144, 3 * 4 * 64)
    assert c.overlapping
    quantizer = ScalarQuantizerConfig(levels=(5, 4, 3))
    assert (quantizer.codebook_size, quantizer.code_dim) == (60, 3)
    assert PatchDiscriminatorConfig(layers=4).widths == (32, 64, 128, 256)
    generator = GeneratorConfig(**GENERATOR, classes=3)
    assert (generator.eob, generator.separator, generator.vocabulary) == (60, 61, 61)
    assert (generator.prefix, generator.max_entries, generator.hidden) == (1, 4 * 513, 256)
    assert base().tokenizer == TokenizerConfig()


def test_plain_sizes_get_default_options():
    plain = TransformerConfig(width=64, depth=2, heads=2)
    c = TokenizerConfig.model_validate({"encoder": plain})
    assert c.encoder == StackConfig(width=64, depth=2, heads=2)
    assert StackConfig(width=64, depth=1, heads=2, rope=True, mlp="swiglu").changed_options() == (
        "mlp 'swiglu', rope True"
    )


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "expected a mapping of fields, got list"), ("a: [", "not a YAML")]
)
def test_files_without_a_mapping(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_yaml(path)

"""Kinds of discriminators, their losses, and the adaptive weight of the adversarial loss."""

from __future__ import annotations

import math

import pytest
import torch
import yaml

from adaptok.config.discriminator import PatchDiscriminatorConfig, TransformerDiscriminatorConfig
from adaptok.config.training import TrainingConfig, load_config, override
from adaptok.models.discriminator import PatchDiscriminator, build_discriminator
from adaptok.models.flops import discriminator_flops
from adaptok.models.model import Model
from adaptok.training.adversarial import MAX_ADVERSARIAL_WEIGHT, AdversarialLoss, adaptive_loss
from adaptok.training.clip_data import ClipData
from adaptok.training.estimate import parameter_counts, step_flops, step_memory
from adaptok.training.losses import LpipsNetworks, frequency_loss
from adaptok.training.objectives import StepContext, TokenizerObjective
from adaptok.training.trainer import Trainer
from tests.helpers.models import small_config
from tests.helpers.training import Clips, assert_resumes, config, everything, train

PATCH = {"kind": "patch", "channels": 8, "layers": 2, "temporal_layers": 1, "update_interval": 2}
CLIPS = small_config().tokenizer  # 8 frames of 16 x 16 pixels


@pytest.fixture
def patch() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(PatchDiscriminatorConfig(**PATCH), CLIPS)


def test_configurations_without_a_kind_have_a_transformer(tmp_path):
    options = config(tmp_path, "tokenizer", discriminator={"width": 16, "heads": 2})
    assert options.discriminator == TransformerDiscriminatorConfig(width=16, heads=2)
    names = set(build_discriminator(options.discriminator.model_copy(update={"depth": 1}), CLIPS).state_dict())
    assert {"embedding.weight", "class_token", "final_norm.weight", "head.bias"} <= names


def test_run_folders_without_a_kind_resume(tmp_path):
    options = config(tmp_path, "tokenizer", max_steps=4)
    with pytest.raises(KeyboardInterrupt):
        train(options.model_copy(update={"checkpoint_every": 2}), tmp_path / "run", stop_at=3)
    path = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    for name in ("kind", "loss", "adaptive"):
        del values["discriminator"][name]
    path.write_text(yaml.safe_dump(values))
    train(options.model_copy(update={"checkpoint_every": 2}), tmp_path / "run")
    assert yaml.safe_load(path.read_text())["discriminator"]["kind"] == "transformer"


@pytest.mark.parametrize(
    ("discriminator", "message"),
    [
        ({"widht": 16}, "did you mean 'width'"),
        ({"kind": "patch", "chanels": 16}, "did you mean 'channels'"),
        ({"kind": "patch", "leyers": 16}, "did you mean 'layers'"),
        ({"kind": "patch", "patch_size": 4}, "unknown field"),
        ({"kind": "pach"}, "'transformer', 'patch'"),
        ({"kind": "patch", "channels": 12}, "channels 12, expected a multiple of 8"),
        ({"kind": "patch", "layers": 1}, "temporal_layers 2, expected at most the 1 layers"),
    ],
)
def test_mistakes_are_named(tmp_path, discriminator, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, "tokenizer", discriminator=discriminator)


def test_adaptive_needs_a_reconstruction_loss(tmp_path):
    with pytest.raises(ValueError, match=r"give one of losses\.l1, losses\.mse"):
        config(tmp_path, "tokenizer", losses={"l1": 0, "adversarial": 1}, discriminator={"adaptive": True})


def test_overrides_choose_the_kind():
    tiny = load_config("tiny", "tokenizer")
    changed = override(tiny, {"discriminator.width": "64", "discriminator.adaptive": "true"}).discriminator
    assert changed == TransformerDiscriminatorConfig(width=64, adaptive=True)
    values = {"discriminator.kind": "patch", "discriminator.channels": "16", "discriminator.loss": "hinge"}
    assert override(tiny, values).discriminator == PatchDiscriminatorConfig(channels=16, loss="hinge")
    with pytest.raises(ValueError, match="expected one of transformer, patch"):
        override(tiny, {"discriminator.kind": "pach"})


def test_a_logit_for_every_patch_and_a_gradient_for_every_pixel(patch):
    clips = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = patch(clips)
    assert logits.shape == (2, 4 * 4 * 4)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert clips.grad.abs().amin() > 0
    with pytest.raises(ValueError, match="expected at most 4"):
        PatchDiscriminator(PatchDiscriminatorConfig(layers=5), CLIPS)


@pytest.mark.parametrize("loss", ["hinge", "non_saturating"])
def test_it_learns_to_distinguish_noise_from_blurred_noise(loss):
    torch.manual_seed(0)
    adversary = AdversarialLoss(PatchDiscriminatorConfig(**PATCH, loss=loss), CLIPS)
    optimizer = torch.optim.Adam(adversary.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def pair():
        real, fake = torch.rand(2, 4, 3, 8, 16, 16, generator=generator)
        return real, torch.nn.functional.avg_pool3d(fake, (1, 3, 3), stride=1, padding=(0, 1, 1))

    for _ in range(15):
        optimizer.zero_grad()
        adversary(*pair(), generator)[0].backward()
        optimizer.step()
    real, fake = (adversary.discriminator(clips) for clips in pair())
    assert real.amin() > fake.amax()


@pytest.mark.parametrize("discriminator", [PATCH, {"width": 16, "depth": 1, "heads": 2, "patch_size": 4}])
def test_hinge_losses_are_their_formulas(discriminator, tmp_path):
    torch.manual_seed(0)
    settings = config(
        tmp_path, "tokenizer", discriminator={**discriminator, "loss": "hinge", "lecam": 0.5}
    ).discriminator
    adversary = AdversarialLoss(settings, CLIPS)
    real, fake = torch.rand(2, 2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    adversary.real_anchor.fill_(0.3)
    adversary.fake_anchor.fill_(-0.2)
    real_logits, fake_logits = adversary.discriminator(real), adversary.discriminator(fake)
    hinge = (1 - real_logits).clamp(min=0).mean() + (1 + fake_logits).clamp(min=0).mean()
    lecam = (real_logits + 0.2).clamp(min=0).square().mean() + (0.3 - fake_logits).clamp(min=0).square().mean()
    loss, metrics = adversary(real, fake, torch.Generator())
    torch.testing.assert_close(loss, hinge + 0.5 * lecam)
    torch.testing.assert_close(metrics["discriminator"], hinge.detach())
    torch.testing.assert_close(adversary.reconstruction_loss(fake), -fake_logits.mean())


def test_lecam_of_means_is_its_formula():
    settings = PatchDiscriminatorConfig(**PATCH, loss="hinge", lecam=0.5, lecam_of="means")
    torch.manual_seed(0)
    adversary = AdversarialLoss(settings, CLIPS)
    real, fake = torch.rand(2, 2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    adversary.real_anchor.fill_(0.3)
    adversary.fake_anchor.fill_(-0.2)
    real_mean, fake_mean = (adversary.discriminator(clips).mean() for clips in (real, fake))
    expected = (real_mean + 0.2).clamp(min=0).square() + (0.3 - fake_mean).clamp(min=0).square()
    loss, metrics = adversary(real, fake, torch.Generator())
    torch.testing.assert_close(metrics["lecam"], expected.detach())
    torch.testing.assert_close(loss - metrics["discriminator"], 0.5 * expected.detach(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(adversary.real_anchor, 0.999 * torch.tensor(0.3) + 0.001 * real_mean.detach())


def test_the_official_discriminator_reads_pixels_as_they_are():
    changes = {"width": 16, "depth": 1, "heads": 2, "patch_size": 4, "temporal_patch_size": 2}
    scaled, plain = (
        build_discriminator(TransformerDiscriminatorConfig(**changes, center_input=center, norm_eps=1e-6), CLIPS)
        for center in (True, False)
    )
    plain.load_state_dict(scaled.state_dict())
    clips = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(clips * 2 - 1), scaled(clips))
    assert plain.final_norm.eps == 1e-6


LOSSES = {"l1": 1, "frequency": 0.2, "quantizer": 0.1, "prior": 0.06, "adversarial": 0.8}


@pytest.mark.parametrize("loss", ["hinge", "non_saturating"])
def test_adaptive_gradients_are_those_of_two_backward_passes(tmp_path, clips, loss):
    settings = {**PATCH, "loss": loss, "adaptive": True}
    options = config(tmp_path, "tokenizer", losses=LOSSES, discriminator=settings)
    torch.manual_seed(0)
    model = Model(options.model)
    torch.nn.init.normal_(model.tokenizer.to_pixels.weight, std=0.3)
    adversary = AdversarialLoss(options.discriminator, CLIPS)

    def backward(losses, adaptive):
        discriminator = options.discriminator.model_copy(update={"adaptive": adaptive})
        changed = options.model_copy(update={"losses": losses, "discriminator": discriminator})
        model.zero_grad()
        objective = TokenizerObjective(model, changed, LpipsNetworks()).eval()
        outcome = objective(clips, StepContext.seeded(0, adversarial=adversary.reconstruction_loss))
        (outcome.loss / 4).backward()  # as with four accumulation steps
        return outcome, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    outcome, gradients = backward(options.losses, True)
    weight = float(outcome.metrics["adversarial_weight"])
    assert all(parameter.grad is None for parameter in adversary.parameters())

    prediction = outcome.reconstructions.requires_grad_()
    others = (prediction - clips).abs().mean() + 0.2 * frequency_loss(prediction, clips)
    (first,), (second,) = (
        torch.autograd.grad(term, prediction) for term in (others, adversary.reconstruction_loss(prediction))
    )
    assert weight == pytest.approx(float(0.8 * first.norm() / second.norm()), rel=1e-4)

    reference, expected = backward(options.losses.model_copy(update={"adversarial": weight}), False)
    torch.testing.assert_close(outcome.loss, reference.loss)
    assert gradients.keys() == expected.keys()
    assert any(name.startswith("prior.") for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-7, msg=name)
    without = backward(options.losses.model_copy(update={"adversarial": 0.0}), False)[1]
    assert not torch.allclose(without["tokenizer.to_pixels.weight"], gradients["tokenizer.to_pixels.weight"], rtol=0.01)


@pytest.mark.parametrize(
    ("others", "adversarial", "weight"),
    [
        (1.0, 2.0, 0.25),
        (0.0, 2.0, 0.0),
        (1.0, 0.0, 0.0),
        (1.0, 1e-9, MAX_ADVERSARIAL_WEIGHT),
        (1.0, math.nan, math.nan),
    ],
)
def test_adaptive_weights_are_bounded(others, adversarial, weight):
    prediction = torch.ones(4, requires_grad=True)
    leaf = prediction.detach().requires_grad_()
    loss, result = adaptive_loss(prediction, leaf, others * leaf.sum(), adversarial * leaf.sum(), 0.5)
    torch.testing.assert_close(result, torch.tensor(weight), equal_nan=True)
    assert bool(torch.isfinite(loss)) == math.isfinite(weight)
    if math.isfinite(weight):
        loss.backward()
        torch.testing.assert_close(prediction.grad, torch.full((4,), others + weight * adversarial))


def test_resumed_runs_with_an_adaptive_patch_discriminator_equal_uninterrupted_ones(tmp_path):
    settings = {**PATCH, "loss": "hinge", "adaptive": True}
    options = config(
        tmp_path,
        "tokenizer",
        discriminator=settings,
        max_steps=6,
        checkpoint_every=2,
        validate_every=6,
        gradient_accumulation_steps=2,
    )
    metrics = assert_resumes(options, tmp_path, (1, 5))
    tensors, _ = everything(tmp_path / "parts")
    assert any(name.startswith("adversary.discriminator.convolutions.") for name in tensors)
    started = ["adversarial_weight" in line for line in metrics if "loss" in line]
    assert started == [False] * 2 + [True] * 4


@pytest.mark.parametrize("discriminator", [PATCH, {"width": 16, "depth": 1, "heads": 2, "patch_size": 4}])
def test_nothing_adversarial_happens_before_its_start(tmp_path, discriminator):
    settings = {**discriminator, "loss": "hinge", "adaptive": True, "update_interval": 1}
    losses = {"l1": 1, "adversarial": 0.5, "start_steps": {"adversarial": 2}}
    options = config(tmp_path, "tokenizer", losses=losses, discriminator=settings, max_steps=2)
    train(options, tmp_path / "waiting")
    train(
        options.model_copy(update={"losses": options.losses.model_copy(update={"adversarial": 0.0})}), tmp_path / "none"
    )
    (waiting, metrics), (none, metrics_without) = everything(tmp_path / "waiting"), everything(tmp_path / "none")
    assert all(torch.equal(tensor, waiting[name]) for name, tensor in none.items())
    assert metrics == metrics_without
    fresh = Trainer(options, ClipData(Clips(), None), tmp_path / "fresh")
    initial = fresh.discriminator.loss.state_dict()
    assert all(torch.equal(tensor, waiting[f"adversary.{name}"]) for name, tensor in initial.items())
    assert not any(name.startswith("adversary-optimizer.") for name in waiting)

    longer = options.model_copy(update={"max_steps": 3})
    train(longer, tmp_path / "started")
    started, metrics = everything(tmp_path / "started")
    assert any(not torch.equal(tensor, started[f"adversary.{name}"]) for name, tensor in initial.items())
    assert {"adversarial", "adversarial_weight", "discriminator"} <= metrics[2].keys()


def test_estimates_count_either_kind(tmp_path):
    patch = PatchDiscriminatorConfig(**PATCH)
    # 3 x 4 x 4 kernels over 4 x 8 x 8 and 4 x 4 x 4 places, and the logits
    expected = 2 * (48 * 3 * 8 * 4 * 64 + 48 * 8 * 16 * 4 * 16 + 27 * 16 * 4 * 16)
    assert discriminator_flops(PatchDiscriminatorConfig(**{**PATCH, "temporal_layers": 1}), CLIPS) == expected
    without = config(tmp_path, "tokenizer", losses={"l1": 1})
    for kind in (patch, TransformerDiscriminatorConfig(width=16, depth=1, heads=2, patch_size=4)):
        options = TrainingConfig.parse({**without.model_dump(), "discriminator": kind.model_dump(), "losses": LOSSES})
        count = sum(parameter.numel() for parameter in build_discriminator(kind, CLIPS).parameters())
        assert parameter_counts(options)["discriminator"] == count
        more = step_flops(options) - step_flops(without)
        assert more == pytest.approx(2 * discriminator_flops(kind, CLIPS) * (2 + 6 / kind.update_interval))
        assert step_memory(options) > step_memory(without) + 16 * count

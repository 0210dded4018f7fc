"""Muon's steps."""

from __future__ import annotations

import pytest
import torch

from adaptok.training.optim import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (32, 32)])
def test_singular_values_come_close_to_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert (orthogonalize(matrix) * (u @ v)).sum() / min(shape) > 0.85  # the same directions


def test_a_step_has_the_size_of_one_of_adamw():
    parameter = torch.nn.Parameter(torch.zeros(64, 32))
    optimizer = Muon([parameter], lr=0.01, weight_decay=0.0)
    parameter.grad = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert 0.1 * 0.01 < parameter.detach().square().mean().sqrt() < 0.3 * 0.01


def test_kernels_are_matrices_of_flattened_inputs():
    generator = torch.Generator().manual_seed(0)
    values, gradients = torch.randn(8, 4, 3, 3, generator=generator), torch.randn(3, 8, 4, 3, 3, generator=generator)
    kernel, matrix = torch.nn.Parameter(values.clone()), torch.nn.Parameter(values.flatten(1).clone())
    optimizers = Muon([kernel], lr=0.1), Muon([matrix], lr=0.1)
    for gradient in gradients:
        kernel.grad, matrix.grad = gradient, gradient.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(kernel.flatten(1), matrix)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon needs torch 2.9")
def test_steps_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(32, 16, generator=generator)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    ours = Muon([mine], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        mine.grad = torch.randn(32, 16, generator=generator)
        theirs.grad = mine.grad.clone()
        ours.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (mine - theirs).norm() < 0.03 * moved  # it computes in bfloat16


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)

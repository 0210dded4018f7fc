"""The simulated CUDA device fails where a GPU fails, and computes what the CPU computes."""

from __future__ import annotations

import pytest
import torch

from adaptok import AdapTok
from tests.helpers.models import random_model, small_config
from tests.helpers.simulated_cuda import CudaTensor, DeviceMismatchError, simulated_cuda

MISTAKES = {
    "sum": lambda x, y: x + y,
    "product": lambda x, y: x @ y.T,
    "concatenation": lambda x, y: torch.cat([x, y]),
    "rows by an index": lambda x, y: x.index_select(0, torch.arange(2)),
    "indices of the device": lambda x, y: y[torch.arange(2, device="cuda")],
    "values in place": lambda x, y: x.index_copy_(0, torch.arange(2, device="cuda"), y[:2]),
    "into the CPU": lambda x, y: y.add_(x),
    "mask": lambda x, y: x.masked_fill(y > 0, 0),
    "lookup": lambda x, y: torch.nn.functional.embedding(torch.zeros(2, dtype=torch.long), x),
    "weights": lambda x, y: torch.nn.Linear(4, 4)(x),
    "search": lambda x, y: torch.searchsorted(x[0], y[0]),
    "comparison": torch.equal,
    "generator": lambda x, y: torch.empty_like(x).exponential_(generator=torch.Generator()),
    "generator of the device": lambda x, y: torch.rand(2, generator=torch.Generator("cuda")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_tensors_of_different_devices_are_an_error(name):
    with simulated_cuda(), pytest.raises(DeviceMismatchError):
        MISTAKES[name](torch.ones(3, 4, device="cuda"), torch.ones(3, 4))


def test_numpy_needs_a_copy():
    with simulated_cuda():
        x = torch.arange(3.0).to("cuda")
        with pytest.raises(TypeError, match="copy it to the CPU"):
            x.numpy()
        assert x.cpu().numpy().tolist() == x.tolist() == [0, 1, 2]


def test_what_a_gpu_allows():
    with simulated_cuda():
        x, y = torch.ones(3, 4, device="cuda"), torch.zeros(3, 4)
        assert x.is_cuda
        assert x.device == torch.device("cuda", 0)
        assert (x + torch.tensor(1.0)).sum() == 24  # scalars
        assert x[torch.tensor([0, 2])].shape == (2, 4)  # indices of the CPU
        x[1:] = y[1:]  # copies
        assert x.copy_(y) is x
        assert type(y.copy_(x)) is torch.Tensor
        copy = x.to("cpu").add_(1)
        assert (x == 0).all()
        assert type(copy) is torch.Tensor
        assert isinstance(torch.rand(2, generator=torch.Generator("cuda"), device="cuda"), CudaTensor)


def test_gradients_cross_devices():
    with simulated_cuda():
        x = torch.ones(3, requires_grad=True)
        y = x.to("cuda").mul(2).requires_grad_()
        y.cpu().square().sum().backward()
        assert x.grad.tolist() == [8, 8, 8]
        layer = torch.nn.Linear(3, 2).to("cuda").to(torch.float64)
        layer(y.detach().double()).sum().backward()
        assert all(p.device.type == "cuda" and p.grad.device.type == "cuda" for p in layer.parameters())


@pytest.mark.parametrize("name", ["encoder_patch_positions", "decoder_latent_positions", "decoder_patch_queries"])
def test_a_tensor_that_is_left_on_the_cpu_is_found(name, clips):
    with simulated_cuda():
        codec = AdapTok(random_model(small_config()), "0" * 64).to("cuda")
        setattr(codec.model.tokenizer, name, getattr(codec.model.tokenizer, name).cpu())
        with pytest.raises(DeviceMismatchError, match="on cpu"):
            codec.decode_clips(codec.encode_clips(clips).ids, [[8, 3, 0, 5]] * 3)

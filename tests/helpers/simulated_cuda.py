"""A CUDA device that is simulated on the CPU, for tests on machines without a GPU.

A `CudaTensor` states that it is on `cuda:0`, and holds its values in a tensor of the CPU. Operations compute on the
values, so whatever depends on them works as on a GPU: lengths, allocation, sampling, checkpoints. As on a GPU, an
operation between a tensor of the device and one of the CPU is an error, and so are random numbers from a generator of
the other device, and a conversion to NumPy without a copy to the CPU.

`torch._subclasses.FakeTensorMode` does not serve here: it has no values, and builds of torch without CUDA refuse to
index its tensors.

Not simulated: most kernels of CUDA, page-locked memory, streams, compiled steps, and CUDA graphs. Autocast is that of
the CPU, and an inference mode only switches gradients off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
COPIES = {"aten.copy_.default"}
"""Operations between tensors of any devices."""
INDEXING = {
    "aten.index.Tensor",
    "aten.index_put.default",
    "aten.index_put_.default",
    "aten._index_put_impl_.default",
    "aten._unsafe_index.Tensor",
    "aten._unsafe_index_put.default",
}
"""Operations whose second argument, the list of indices, may also be on the CPU."""


class DeviceMismatchError(RuntimeError):
    """An operation between tensors, or a tensor and a generator, of different devices."""


class CudaTensor(Tensor):
    """Tensor of the simulated device, with the values `on_cpu`."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> CudaTensor:
        assert type(values) is not CudaTensor
        new = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=values.device,  # for the C++ parts of torch, which refuse the device where there is no CUDA
        )
        new.on_cpu = values
        return new

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        flat, _ = tree_flatten((args, kwargs or {}))
        _check_devices(func, args, flat)
        given = {id(_to_values(x)): x for x in flat if isinstance(x, Tensor)}  # an operation in place returns one
        out = KERNELS.get(str(func), func)(*_to_values(args), **_to_values(kwargs or {}))
        return tree_map(lambda x: given[id(x)] if id(x) in given else _wrap(x), out)


def _wrap(value: Any) -> Any:
    return CudaTensor(value) if isinstance(value, Tensor) else value


def _to_values(tree: Any) -> Any:
    return tree_map(lambda x: x.on_cpu if isinstance(x, CudaTensor) else x, tree)


def _check_devices(func: Any, args: Sequence[Any], flat: Sequence[Any]) -> None:
    """Raise unless all tensors are on the device. Those of the CPU may be scalars or, for a tensor of the device,
    indices, as in CUDA."""
    if str(func) in COPIES:
        return
    tensors = flat
    if str(func) in INDEXING:
        if not isinstance(args[0], CudaTensor):
            raise DeviceMismatchError(f"{func}: indices on cuda:0 of a tensor on cpu")
        tensors, _ = tree_flatten((args[0], args[2:]))
    strangers = [x for x in tensors if isinstance(x, Tensor) and not isinstance(x, CudaTensor) and x.ndim > 0]
    if strangers:
        shapes = [tuple(x.shape) for x in strangers]
        raise DeviceMismatchError(f"{func}: expected all tensors on cuda:0, found some of shape {shapes} on cpu")


def _efficient_attention(q: Tensor, k: Tensor, v: Tensor, _: None, *rows: Any) -> tuple[Tensor, ...]:
    """Stand in for a kernel of CUDA: attention within each of the sequences that lie one after the other.

    `rows` are offsets and greatest lengths of queries and keys, dropout, kind of mask, and whether to return the
    log-sum-exp.
    """
    outs, sums = [], []
    for queries, keys, values in zip(*_sequences(rows, q, k, v), strict=True):
        outs.append(_weights(queries, keys) @ values)
        sums.append(_logsumexp(queries, keys))
    assert rows[4:6] == (0.0, 0)
    logsumexp = torch.cat(sums, 2) if any(rows[6:]) else torch.zeros(0)  # a default is left out
    return torch.cat(outs, 2).transpose(1, 2), logsumexp, torch.zeros(()), torch.zeros(()), *rows[2:4]


def _efficient_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, _: None, out: Tensor, *rows: Any
) -> tuple[Tensor, ...]:
    gradients, sums = [], []
    for tile, queries, keys, values in zip(*_sequences(rows, grad, q, k, v, queries=2), strict=True):
        sums.append(_logsumexp(queries, keys))
        weights, slope = _weights(queries, keys), tile @ values.mT
        slope = weights * (slope - (weights * slope).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
        gradients.append((slope @ keys, slope.mT @ queries, weights.mT @ tile))
    torch.testing.assert_close(rows[4], torch.cat(sums, 2))
    return *(torch.cat(parts, 2).transpose(1, 2) for parts in zip(*gradients, strict=True)), torch.zeros(0)


def _flash_attention(q: Tensor, k: Tensor, v: Tensor, *rows: Any) -> tuple[Tensor, ...]:
    assert rows[4:] == (0.0, False, False)  # dropout, causal, debugging
    out, *saved = _efficient_attention(q[None], k[None], v[None], None, *rows[:4], 0.0, 0, True)[:4]
    return out[0], *saved, torch.zeros(0)


def _flash_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor, *rows: Any
) -> tuple[Tensor, ...]:
    tensors = (x[None] for x in (grad, q, k, v))
    dq, dk, dv, _ = _efficient_attention_backward(*tensors, None, out[None], *rows[:4], logsumexp)
    return dq[0], dk[0], dv[0]


def _logsumexp(q: Tensor, k: Tensor) -> Tensor:
    return torch.logsumexp((q @ k.mT * q.shape[-1] ** -0.5).float(), -1)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1)


def _sequences(rows: Sequence[Tensor], *packed: Tensor, queries: int = 1) -> list[list[Tensor]]:
    """Split tensors `[1, N, H, d]`, of which some are for queries and the others for keys, into `[1, H, n, d]`."""
    assert tuple(rows[2:4]) == tuple(int(offsets.diff().max()) for offsets in rows[:2])
    counts = [rows[int(i >= queries)].diff().tolist() for i in range(len(packed))]
    return [[part.transpose(1, 2) for part in x.split(own, 1)] for x, own in zip(packed, counts, strict=True)]


KERNELS: dict[str, Callable[..., Any]] = {
    "aten._efficient_attention_forward.default": _efficient_attention,
    "aten._efficient_attention_backward.default": _efficient_attention_backward,
    "aten._flash_attention_forward.default": _flash_attention,
    "aten._flash_attention_backward.default": _flash_attention_backward,
}
"""What computes operations that the CPU does not have."""


class _Generator(torch.Generator):
    """Random state that states its device."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, device="cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.stated = torch.device(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.stated


class _Move(torch.autograd.Function):
    """Copy to the other device. The gradient is copied back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.on_cpu.clone() if isinstance(x, CudaTensor) else CudaTensor(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Move.forward(ctx, grads[0])


def _move(tree: Any, cuda: bool) -> Any:
    def move(x: Any) -> Any:
        return _Move.apply(x) if isinstance(x, Tensor) and isinstance(x, CudaTensor) != cuda else x

    return tree_map(move, tree)


class _Functions(TorchFunctionMode):
    """Moves what functions of torch are asked to make or move to the device."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _transfer(func, first, args[1:], kwargs)
        if isinstance(first, CudaTensor):
            if func in (Tensor.numpy, Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy; copy it to the CPU first")
            if func is Tensor.tolist:
                return first.on_cpu.tolist()
            if func is F.scaled_dot_product_attention and kwargs.get("is_causal"):
                kwargs |= {"is_causal": False, "attn_mask": _causal_mask(first, args[1])}  # torch makes it on the CPU
        asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        _check_generator(func, first, asked, kwargs)
        if asked is None or asked.type == "meta":
            return func(*args, **kwargs)
        return _move(func(*args, **{**kwargs, "device": "cpu"}), asked.type == "cuda")


def _causal_mask(queries: Tensor, keys: Tensor) -> CudaTensor:
    return CudaTensor(torch.ones(queries.shape[-2], keys.shape[-2], dtype=torch.bool).tril())


def _transfer(func: Any, x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Apply `Tensor.to`, `cpu` or `cuda`."""
    if func is not Tensor.to:
        return _move(x, func is Tensor.cuda)
    given = [*args, kwargs.get("device"), kwargs.get("dtype")]
    if isinstance(given[0], Tensor):
        given[:1] = [given[0].device, given[0].dtype]
    devices = [torch.device(value) for value in given if isinstance(value, str | torch.device)]
    dtypes = [value for value in given if isinstance(value, torch.dtype)]
    if devices and devices[0].type == "meta":
        return x.to(*args, **kwargs)
    moved = _move(x, devices[0].type == "cuda") if devices else x
    return moved.type(dtypes[0]) if dtypes and dtypes[0] != moved.dtype else moved


def _check_generator(func: Any, first: Any, asked: torch.device | None, kwargs: Mapping[str, Any]) -> None:
    generator = kwargs.get("generator")
    if generator is None:
        return
    default = first.device if isinstance(first, Tensor) else torch.device("cpu")
    expected = (asked or default).type
    if generator.device.type != expected:
        raise DeviceMismatchError(f"{func}: expected a generator on {expected}, found one on {generator.device.type}")


@contextmanager
def simulated_cuda() -> Iterator[None]:
    """Simulate a CUDA device while the context is open."""
    autocast: Callable[..., Any] = torch.autocast
    functions = _Functions()

    def cpu_autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return autocast("cpu", *args, **kwargs)

    def run_backward_here(*args: Any, **kwargs: Any) -> Any:
        with functions:  # which torch switches off while it handles a call of `backward`
            return _engine_run_backward(*args, **kwargs)

    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        # modules replace their parameters, because values of a CudaTensor cannot be set
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        stack.enter_context(mock.patch("torch.Generator", _Generator))
        stack.enter_context(mock.patch("torch.autocast", cpu_autocast))
        stack.enter_context(mock.patch("torch.cuda.synchronize", return_value=None))
        stack.enter_context(mock.patch("torch.cuda.get_device_capability", return_value=(8, 0)))
        flash = mock.patch("torch.backends.cuda.is_flash_attention_available", return_value=True)
        stack.enter_context(flash)
        # views of tensors from outside of an inference mode are refused for classes of tensors
        no_gradient = mock.patch("torch._C._InferenceMode", lambda mode: torch.no_grad() if mode else nullcontext())
        stack.enter_context(no_gradient)
        stack.enter_context(mock.patch("torch.autograd._engine_run_backward", run_backward_here))
        stack.enter_context(functions)
        yield

"""A pretend accelerator, so that mistakes with devices show up on a computer that has none.

Inside `with PretendAccelerator():` a tensor moved to the device "lazy" says that it is there. It wraps an ordinary CPU
tensor, so every operator gives real values. But an operator that mixes it with a CPU tensor raises the error that a GPU
raises, and so does `.numpy()`. As on a GPU, a CPU tensor without dimensions and a CPU index are accepted. What keeps a
GPU's queue from filling is counted: copies from the host, and waits of the host for a value.

Why "lazy": PyTorch has this device type in every build and passes its tensors on to a dispatch mode without a driver.
"cuda" and "mps" need one first.

In one respect a GPU differs: there a moved model keeps its `Parameter` objects, here they are replaced by new ones. So
an optimizer must be made after the move.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "lazy"
CPU = torch.device("cpu")
MAY_MIX = ("_to_copy", "copy_")
WAIT = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "is_nonzero")
TAKE_INDICES = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


class OnAccelerator(Tensor):
    """A tensor on the pretend accelerator. `inner` is the CPU tensor with its values."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnAccelerator":
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=NAME,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.inner.__reduce_ex__(protocol)  # a file holds the values, and not where they were

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_with_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_with_tensors(index), value)

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def unsqueeze_(self, dim: int) -> Tensor:
        return self.unsqueeze(dim)  # what is returned has the shape; this tensor keeps its own, unlike on a GPU

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.dim() == 0 else super().__format__(form)


class _Mode(TorchDispatchMode):
    """Sees every operator, so that those which make a tensor on the pretend accelerator are caught too."""

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.copies, self.waits = 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(issubclass(kind, OnAccelerator) for kind in types) and not _is_ours(_device_of(args, kwargs)):
            return func(*args, **kwargs)
        if _is_composite(func):  # arrives whole in inference mode only
            with self:
                return func.decompose(*args, **kwargs)
        self.operators += 1
        copies, waits = _copies_and_waits(func.overloadpacket.__name__, args, kwargs)
        self.copies, self.waits = self.copies + copies, self.waits + waits
        return _run(func, args, kwargs)


@contextlib.contextmanager
def PretendAccelerator() -> Iterator[_Mode]:
    """Within it the device "lazy" exists.

    The value counts what happened so far: `operators` that ran there, `copies` from the host to it, and `waits` of the
    host, for a value, a size that depends on values, or a copy back.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in _replacements():
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield stack.enter_context(_Mode())


# ---- One operator


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """Run the operator on the CPU tensors that are wrapped, and wrap what it returns."""
    name = func.overloadpacket.__name__
    if name == "_has_compatible_shallow_copy_type":  # may nn.Module._apply put the second one's data in the first?
        return args[0] is args[1]
    tensors = list(_tensors_in(args))
    tensors += _tensors_in(kwargs.values())
    _refuse_mixed(func, name, args, tensors)
    device = kwargs.get("device")
    there = any(type(t) is OnAccelerator for t in tensors) if device is None else _is_ours(device)
    if _is_ours(device):
        kwargs = {**kwargs, "device": CPU}
    with _ordinary_tensors(name, tensors):
        out = func(*[_inner(a) for a in args], **{key: _inner(value) for key, value in kwargs.items()})
        written = _written_argument(func)
        if written is not None:
            position, key = written
            return _same_shape(args[position] if position < len(args) else kwargs[key])
        return _wrapped(out) if there else out


def _copies_and_waits(name: str, args: tuple, kwargs: dict) -> tuple[int, int]:
    """Whether an operator copies from the host, and whether the host waits for what it gives."""
    if name == "_to_copy" and kwargs.get("device") is not None:
        source, target = isinstance(args[0], OnAccelerator), _is_ours(kwargs["device"])
    elif name == "copy_":
        source, target = isinstance(args[1], OnAccelerator), isinstance(args[0], OnAccelerator)
    else:
        by_mask = name in TAKE_INDICES and any(t.dtype == torch.bool for t in _tensors_in(args[1:2]))
        return 0, int(name in WAIT or by_mask)
    return int(target and not source), int(source and not target)


def _refuse_mixed(func: Any, name: str, args: tuple, tensors: Sequence[Tensor]) -> None:
    ours = sum(isinstance(t, OnAccelerator) for t in tensors)
    if not ours or ours == len(tensors) or name in MAY_MIX:
        return
    if name in TAKE_INDICES and isinstance(args[0], OnAccelerator):
        tensors = list(_tensors_in(args[2:3]))  # the indices may be on the CPU, the values not
    if any(not isinstance(t, OnAccelerator) and t.dim() for t in tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({func})"
        )


def _tensors_in(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


def _inner(value: Any) -> Any:
    if isinstance(value, OnAccelerator):
        return value.inner
    if isinstance(value, list | tuple):
        return [_inner(v) for v in value]
    return value


def _with_tensors(index: Any) -> Any:
    """The index with its lists as CPU tensors, since PyTorch itself would make them on the device."""
    if isinstance(index, tuple):
        return tuple(_with_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _wrapped(value: Any) -> Any:
    if isinstance(value, Tensor):
        return OnAccelerator(value)
    if isinstance(value, list | tuple):
        return type(value)(_wrapped(v) for v in value)
    return value


def _same_shape(written: Tensor) -> Tensor:
    if isinstance(written, OnAccelerator) and written.shape != written.inner.shape:
        raise NotImplementedError("the pretend accelerator has no operator that changes a tensor's shape in place.")
    return written


def _device_of(args: tuple, kwargs: dict) -> torch.device | None:
    """The device that the operator is to put its result on."""
    return kwargs.get("device") or next((a for a in args if isinstance(a, torch.device)), None)


def _is_ours(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == NAME


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@functools.cache
def _written_argument(func: Any) -> tuple[int, str] | None:
    """Which argument the operator writes to and returns: its position and its name."""
    if func._schema.returns and func._schema.returns[0].alias_info and func._schema.returns[0].alias_info.is_write:
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info and argument.alias_info.is_write:
                return position, argument.name
    return None


def _ordinary_tensors(name: str, tensors: Sequence[Tensor]) -> contextlib.AbstractContextManager:
    """In inference mode `detach` of an ordinary tensor gives an ordinary one."""
    if name == "detach" and torch.is_inference_mode_enabled():
        return torch.inference_mode(tensors[0].is_inference())
    return contextlib.nullcontext()


# ---- What PyTorch does before it comes to an operator

IN_LOW_PRECISION = {
    F.conv1d, F.conv2d, F.linear, F.scaled_dot_product_attention, torch.addmm, torch.baddbmm, torch.bmm, torch.conv2d,
    torch.einsum, torch.matmul, torch.mm, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.matmul, Tensor.mm,
}  # fmt: skip
IN_FLOAT32 = {
    F.cross_entropy, F.group_norm, F.layer_norm, F.log_softmax, F.softmax, torch.log_softmax, torch.softmax,
    torch.sum, Tensor.log_softmax, Tensor.softmax, Tensor.sum,
}  # fmt: skip


class _Autocast(TorchFunctionMode):
    """torch.autocast for the pretend accelerator, with the functions that Conv2Former and Swin call."""

    active: ClassVar[list["_Autocast"]] = []

    def __init__(self, dtype: torch.dtype, enabled: bool) -> None:
        super().__init__()
        self.dtype, self.enabled = dtype, enabled

    def __enter__(self) -> "_Autocast":
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.active.pop()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        wanted = self.dtype if func in IN_LOW_PRECISION else torch.float32 if func in IN_FLOAT32 else None
        if wanted and self.enabled and self is self.active[-1]:
            args, kwargs = _cast(args, wanted), {name: _cast(value, wanted) for name, value in kwargs.items()}
        return func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_cast(v, dtype) for v in value)
    return value.to(dtype) if isinstance(value, OnAccelerator) and value.is_floating_point() else value


def _replacements() -> Iterator[tuple[Any, str, Callable]]:
    """Functions that know the devices by name, and what takes their place."""
    make, make_sharing, autocast = torch.tensor, torch.as_tensor, torch.autocast
    is_autocast_enabled, get_autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype

    def tensor(data, *, device=None, **kwargs):
        return make(data, device=CPU, **kwargs).to(device) if _is_ours(device) else make(data, device=device, **kwargs)

    def as_tensor(data, dtype=None, device=None):
        if isinstance(data, OnAccelerator) or not _is_ours(device):
            return make_sharing(data, dtype=dtype, device=device)
        return make_sharing(data, dtype=dtype, device=CPU).to(device)

    def new_tensor(self, data, dtype=None, device=None, **kwargs):
        return tensor(data, dtype=dtype or self.dtype, device=device or self.device, **kwargs)

    def cast_here(device_type, dtype=None, enabled=True, **kwargs):
        if device_type != NAME:
            return autocast(device_type, dtype, enabled, **kwargs)
        return _Autocast(dtype or torch.bfloat16, enabled) if enabled or _Autocast.active else contextlib.nullcontext()

    def is_enabled(*device_type):
        if device_type != (NAME,):
            return is_autocast_enabled(*device_type)
        return bool(_Autocast.active) and _Autocast.active[-1].enabled

    def get_dtype(device_type):
        return _Autocast.active[-1].dtype if device_type == NAME else get_autocast_dtype(device_type)

    yield torch, "tensor", tensor
    yield torch, "as_tensor", as_tensor
    yield Tensor, "new_tensor", new_tensor
    yield torch, "autocast", cast_here
    yield torch, "is_autocast_enabled", is_enabled
    yield torch, "get_autocast_dtype", get_dtype

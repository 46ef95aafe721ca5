"""A pretend accelerator, so that mistakes with devices show up on a computer that has none.

Inside `with PretendAccelerator():` a tensor moved to the device "cuda" says that it is there; inside
`with PretendAccelerator(like="mps"):` the device is "mps". The tensor wraps an ordinary CPU tensor, so every operator
gives real values. But an operator that mixes it with a CPU tensor raises the error that a GPU raises, and so does
`.numpy()`. As on a GPU, a CPU tensor without dimensions and a CPU index are accepted. What keeps a GPU's queue from
filling is counted: copies from the host, and waits of the host for a value. What torch.cuda or torch.mps is asked about
has an answer, so that code which looks at the device's name runs as it does there.

Like "mps" it also refuses what Apple's GPUs cannot do in the oldest PyTorch that pyproject.toml admits: float64, and
the operators of `LACKING`.

PyTorch itself takes the tensors for ones of the device "lazy": it has this type in every build and passes its tensors
on to a dispatch mode without a driver, where "cuda" and "mps" need one first.

In one respect a GPU differs: there a moved model keeps its `Parameter` objects, here they are replaced by new ones. So
an optimizer must be made after the move.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
import torch._dynamo  # at the first operator PyTorch would, and it keeps functions that are replaced below
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "cuda"
HELD_AS = torch.device("lazy")
CPU = torch.device("cpu")
MAY_MIX = ("_to_copy", "copy_")
WAIT = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "is_nonzero")
TAKE_INDICES = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
# Has no kernel for MPS in PyTorch 2.6 (native_functions.yaml of its wheel for macOS), and was or might be used here.
LACKING = (
    "_amp_foreach_non_finite_check_and_unscale_", "_amp_update_scale_", "_sample_dirichlet", "_standard_gamma",
    "_upsample_bilinear2d_aa", "index_copy", "index_copy_",
)  # fmt: skip
LOW_PRECISION = (torch.bfloat16, torch.float16)
SLOW_IN_LOW_PRECISION = ("convolution", "convolution_backward")  # on a CPU, so that they run in float32 here
BORDER = 1  # grid_sample's padding mode, which MPS refuses in PyTorch 2.6 and several later ones


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
            device=HELD_AS,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @property
    def device(self) -> torch.device:
        return torch.device(_Mode.name, 0)

    @property
    def is_cuda(self) -> bool:
        return _Mode.name == "cuda"

    @property
    def is_mps(self) -> bool:
        return _Mode.name == "mps"

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
        raise TypeError(f"can't convert {_Mode.name}:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.dim() == 0 else super().__format__(form)


class _Mode(TorchDispatchMode):
    """Sees every operator, so that those which make a tensor on the pretend accelerator are caught too."""

    name: ClassVar[str] = NAME

    def __init__(self) -> None:
        super().__init__()
        self.ran: Counter[str] = Counter()
        self.copies, self.waits, self.synchronized = 0, 0, 0

    @property
    def operators(self) -> int:
        return self.ran.total()

    def synchronize(self, *args: Any) -> None:
        self.synchronized += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(issubclass(kind, OnAccelerator) for kind in types) and not _is_ours(_device_of(args, kwargs)):
            return func(*args, **kwargs)
        if _is_composite(func):  # arrives whole in inference mode only
            with self:
                return func.decompose(*args, **kwargs)
        self.ran[func.name()] += 1
        copies, waits = _copies_and_waits(func.overloadpacket.__name__, args, kwargs)
        self.copies, self.waits = self.copies + copies, self.waits + waits
        return _run(func, args, kwargs)


@contextlib.contextmanager
def PretendAccelerator(like: str = NAME) -> Iterator[_Mode]:
    """Within it there is the device "cuda", or "mps".

    The value counts what happened so far: `operators` that ran there (`ran` has how often each did), `copies` from the
    host to it, and `waits` of the host, for a value, a size that depends on values, or a copy back. How often a
    `synchronize` was called, as code that measures time must, is counted by itself: `synchronized`.
    """
    with contextlib.ExitStack() as stack:
        mode = _Mode()
        stack.enter_context(mock.patch.object(_Mode, "name", like))
        for owner, name, replacement in (*_replacements(), *_answers(like, mode)):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield stack.enter_context(mode)


# ---- One operator


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """Run the operator on the CPU tensors that are wrapped, and wrap what it returns."""
    name = func.overloadpacket.__name__
    if name == "_has_compatible_shallow_copy_type":  # may nn.Module._apply put the second one's data in the first?
        return args[0] is args[1]
    tensors = list(_tensors_in(args))
    tensors += _tensors_in(kwargs.values())
    _refuse_mixed(func, name, args, tensors)
    if _Mode.name == "mps":
        _refuse_on_mps(func, name, args)
    device = kwargs.get("device")
    there = any(type(t) is OnAccelerator for t in tensors) if device is None else _is_ours(device)
    if _is_ours(device):
        kwargs = {**kwargs, "device": CPU}
    with _ordinary_tensors(name, tensors):
        arguments, dtype = [_inner(a) for a in args], tensors[0].dtype if tensors else None
        if in_float32 := name in SLOW_IN_LOW_PRECISION and dtype in LOW_PRECISION:
            arguments = [a.float() if isinstance(a, Tensor) else a for a in arguments]
        out = func(*arguments, **{key: _inner(value) for key, value in kwargs.items()})
        if in_float32:
            out = out.to(dtype) if isinstance(out, Tensor) else tuple(t if t is None else t.to(dtype) for t in out)
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
            f"Expected all tensors to be on the same device, but found at least two devices, {_Mode.name}:0 and cpu! "
            f"({func})"
        )


def _refuse_on_mps(func: Any, name: str, args: tuple) -> None:
    if name in LACKING:
        raise NotImplementedError(f"The operator '{func.name()}' is not currently implemented for the MPS device.")
    if name.startswith("grid_sampler_2d") and args[3 + name.endswith("backward")] == BORDER:
        raise RuntimeError("MPS: Unsupported Border padding mode")


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
        if _Mode.name == "mps" and value.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as MPS doesn't support float64.")
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
    return device is not None and torch.device(device).type in (HELD_AS.type, _Mode.name)


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
    make, make_sharing, move, autocast = torch.tensor, torch.as_tensor, Tensor.to, torch.autocast
    is_autocast_enabled, get_autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype

    def tensor(data, *, device=None, **kwargs):
        return make(data, device=CPU, **kwargs).to(device) if _is_ours(device) else make(data, device=device, **kwargs)

    def to(self, *args, **kwargs):
        return move(self, *map(_held, args), **{key: _held(value) for key, value in kwargs.items()})

    def as_tensor(data, dtype=None, device=None):
        if isinstance(data, OnAccelerator) or not _is_ours(device):
            return make_sharing(data, dtype=dtype, device=device)
        return make_sharing(data, dtype=dtype, device=CPU).to(device)

    def new_tensor(self, data, dtype=None, device=None, **kwargs):
        return tensor(data, dtype=dtype or self.dtype, device=device or self.device, **kwargs)

    def cast_here(device_type, dtype=None, enabled=True, **kwargs):
        if device_type != _Mode.name:
            return autocast(device_type, dtype, enabled, **kwargs)
        return _Autocast(dtype or torch.bfloat16, enabled) if enabled or _Autocast.active else contextlib.nullcontext()

    def is_enabled(*device_type):
        if device_type != (_Mode.name,):
            return is_autocast_enabled(*device_type)
        return bool(_Autocast.active) and _Autocast.active[-1].enabled

    def get_dtype(device_type):
        return _Autocast.active[-1].dtype if device_type == _Mode.name else get_autocast_dtype(device_type)

    yield torch, "tensor", tensor
    yield torch, "as_tensor", as_tensor
    yield Tensor, "new_tensor", new_tensor
    yield Tensor, "to", to
    yield Tensor, "cuda", lambda self: self.to("cuda")
    yield torch, "autocast", cast_here
    yield torch, "is_autocast_enabled", is_enabled
    yield torch, "get_autocast_dtype", get_dtype


def _held(argument: Any) -> Any:
    """What PyTorch's own functions take for the name of the pretend accelerator."""
    return HELD_AS if isinstance(argument, str | torch.device) and _is_ours(argument) else argument


def _answers(like: str, mode: _Mode) -> Iterator[tuple[Any, str, Callable]]:
    """What torch.cuda, torch.mps and torch.accelerator are asked about, and what they answer."""
    about = SimpleNamespace(name="Pretend GPU", total_memory=2**34, major=9, minor=0, multi_processor_count=1)
    answers = {
        torch.accelerator: {
            "current_accelerator": torch.device(like), "current_stream": SimpleNamespace(is_capturing=lambda: False),
            "is_available": True,
        },
        torch.backends.mps: {"is_available": like == "mps"},
        torch.mps: {
            "current_allocated_memory": 0, "driver_allocated_memory": 0, "get_rng_state": torch.empty(0),
            "set_rng_state": None,
        },
        torch.cuda: {
            "_lazy_init": None, "current_device": 0, "device_count": int(like == "cuda"), "empty_cache": None,
            "get_device_capability": (9, 0), "get_device_name": about.name, "get_device_properties": about,
            "get_rng_state": torch.empty(0), "is_available": like == "cuda", "is_bf16_supported": True,
            "is_current_stream_capturing": False, "manual_seed_all": None, "max_memory_allocated": 0,
            "memory_allocated": 0, "reset_peak_memory_stats": None, "set_device": None, "set_rng_state": None,
        },
    }  # fmt: skip
    for module, its_answers in answers.items():
        for name, answer in its_answers.items():
            yield module, name, lambda *args, answer=answer, **kwargs: answer
    for module in (torch.accelerator, torch.cuda, torch.mps):
        yield module, "synchronize", mode.synchronize

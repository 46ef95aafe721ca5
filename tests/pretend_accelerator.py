"""A pretend accelerator, so that GPU mistakes show up on a machine without a GPU.

Inside `with PretendAccelerator():` tensors moved to "lazy" say that they live on device lazy:0. They are wrappers around
ordinary CPU tensors, so every operation has real values; but one that mixes a wrapped tensor with a CPU tensor of one
dimension or more raises what a GPU raises, and so does .numpy() on a wrapped one. "lazy" is used because PyTorch lets that
device type through to dispatch modes without a driver; "cuda" and "mps" ask for one first.
"""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"


class OnAccelerator(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=NAME,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _unwrap(t):
    return t.inner if isinstance(t, OnAccelerator) else t


def _wrap(t):
    return OnAccelerator(t) if isinstance(t, torch.Tensor) and not isinstance(t, OnAccelerator) else t


MAY_MIX = {"_to_copy", "copy_", "_has_compatible_shallow_copy_type", "set_", "lift_fresh", "detach"}


def _run(func, args, kwargs):
    name = func.overloadpacket.__name__
    if name == "to" and isinstance(args[0], OnAccelerator):  # in inference mode it arrives whole
        kinds = [
            a
            for a in (*args[1:], *kwargs.values())
            if isinstance(a, torch.dtype | torch.memory_format) and a not in (args[0].dtype, torch.preserve_format)
        ]
        places = [torch.device(a).type for a in (*args[1:], *kwargs.values()) if isinstance(a, torch.device)]
        if not kinds and all(place == NAME for place in places):
            return args[0]
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    ours = [t for t in tensors if isinstance(t, OnAccelerator)]
    others = [t for t in tensors if not isinstance(t, OnAccelerator) and t.dim() > 0]
    index = name in ("index", "index_put", "index_put_", "_unsafe_index")  # a GPU takes CPU indices
    if ours and others and name not in MAY_MIX and not (index and isinstance(args[0], OnAccelerator)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({func})"
        )
    device = kwargs.get("device", next((a for a in args[1:] if isinstance(a, torch.device)), None))
    args = tuple(torch.device("cpu") if isinstance(a, torch.device) else a for a in args)
    target = torch.device(device).type if device is not None else (NAME if ours else "cpu")
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
    if not func._schema.returns:  # such as aten::_foreach_lerp_
        return None
    if name == "copy_" or (func._schema.is_mutable and name.endswith("_") and args):
        return args[0]
    if func._schema.is_mutable and "out" in kwargs:
        return kwargs["out"]
    if target == NAME:
        return tree_map(_wrap, out)
    return out


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device", next((a for a in args if isinstance(a, torch.device)), None))
        if any(issubclass(t, OnAccelerator) for t in types) or (
            device is not None and torch.device(device).type == NAME
        ):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def PretendAccelerator():
    real = torch.autocast.__init__

    def autocast(self, device_type, *args, **kwargs):
        return real(self, "cpu" if device_type == NAME else device_type, *args, **kwargs)

    made = torch.tensor

    def tensor(data, *, device=None, **kwargs):
        there = device is not None and torch.device(device).type == NAME
        new = made(data, device="cpu" if there else device, **kwargs)
        return new.to(NAME) if there else new

    def new_tensor(self, data, dtype=None, device=None, **kwargs):
        return tensor(data, dtype=dtype or self.dtype, device=device or self.device, **kwargs)

    def as_cpu(function):
        return lambda device_type, *rest: function("cpu" if device_type == NAME else device_type, *rest)

    def apply(self, function, recurse=True):
        """As nn.Module._apply, a parameter that is already there staying what it is."""
        if recurse:
            for child in self.children():
                apply(child, function)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                with torch.no_grad():
                    moved = function(parameter)
                if moved is not parameter:
                    self._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = function(buffer)
        return self

    patches = (
        mock.patch.object(torch.nn.Module, "_apply", apply),
        mock.patch.object(torch, "is_autocast_enabled", as_cpu(torch.is_autocast_enabled)),
        mock.patch.object(torch, "get_autocast_dtype", as_cpu(torch.get_autocast_dtype)),
        mock.patch.object(torch.autocast, "__init__", autocast),
        mock.patch.object(torch, "tensor", tensor),
        mock.patch.object(torch.Tensor, "new_tensor", new_tensor),
    )
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(_Mode())
        yield

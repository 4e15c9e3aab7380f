"""A second device where there is only a CPU: it finds tensors that are made on the wrong one.

PyTorch knows a device "lazy", for which this build has no kernels. Here its tensors hold an
ordinary tensor on the CPU with which everything is computed, so that also what depends on values
runs (NMS, sampling, matching). Like a GPU it refuses an operation on its tensors and those of the
CPU, but for copies and numbers without dimensions; stricter than a GPU, it also refuses indexes on
the CPU unless that is allowed. Nothing is registered with PyTorch.
"""

import contextlib

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

NAME = "lazy"
COPIES = ("aten::_to_copy", "aten::copy_")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class TwoDevicesError(RuntimeError):
    """An operation that takes tensors of two devices."""


class SecondTensor(torch.Tensor):
    """A tensor of the second device: a shell, and the values on the CPU."""

    allowed = COPIES  # operations on tensors of two devices

    @staticmethod
    def __new__(cls, values):
        with torch.inference_mode(False):  # views of parameters are none of inference alone
            return torch.Tensor._make_wrapper_subclass(
                cls, values.size(), strides=values.stride(), dtype=values.dtype,
                storage_offset=values.storage_offset(), device=torch.device(NAME, 0),
            )  # fmt: skip

    def __init__(self, values):
        self.on_cpu = values

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __getitem__(self, index):
        return super().__getitem__(_without_lists(index, self.device))

    def __setitem__(self, index, value):
        super().__setitem__(_without_lists(index, self.device), value)

    def new_tensor(self, data, **options):
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device} | options)

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _SecondDevice(TorchDispatchMode):
    """Makes the tensors that are asked for on the second device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


def _compute(func, args, kwargs):
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _SecondDevice():  # in inference mode; else its parts are what comes here
            return func.decompose(*args, **kwargs)
    leaves = pytree.tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    devices = {str(tensor.device) for tensor in tensors if tensor.ndim or not tensor.is_cpu}
    if len(devices) > 1 and func._schema.name not in SecondTensor.allowed:
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise TwoDevicesError(f"{func} takes tensors of two devices: {shapes}")
    device = kwargs.get("device")
    if func is torch.ops.aten.copy_.default:  # into the first
        is_second = isinstance(args[0], SecondTensor)
    elif device is not None:
        is_second = torch.device(device).type == NAME
    else:
        is_second = any(isinstance(tensor, SecondTensor) for tensor in tensors)
    if device is not None and is_second:
        kwargs = kwargs | {"device": torch.device("cpu")}
    plain = pytree.tree_map_only(SecondTensor, lambda tensor: tensor.on_cpu, (args, kwargs))
    out = func(*plain[0], **plain[1])
    if not is_second:
        return out
    wrap = SecondTensor  # results that are tensors already stay
    out = pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor if isinstance(tensor, wrap) else wrap(tensor), out
    )
    return return_and_correct_aliasing(func, args, kwargs, out)


def _without_lists(index, device):
    """PyTorch would make tensors of them as `torch.tensor` does."""
    if isinstance(index, list):
        return torch.tensor(index, device=device)
    if isinstance(index, tuple):
        return tuple(_without_lists(part, device) for part in index)
    return index


def _from_data(function):
    """`torch.tensor` and `as_tensor` copy to a device in a way that passes this file by."""

    def make(data, *, device=None, requires_grad=False, **options):
        if device is None or torch.device(device).type != NAME:
            made = function(data, device=device, **options)
        else:
            on_cpu = data.device if isinstance(data, torch.Tensor) else "cpu"
            made = function(data, device=on_cpu, **options).to(device)
        return made.requires_grad_() if requires_grad else made

    return make


class _Module:
    """What PyTorch's checkpoints of activations ask a device for; random numbers are the CPU's."""

    get_rng_state = staticmethod(torch.get_rng_state)

    def device(self, index):
        return contextlib.nullcontext()

    def set_rng_state(self, state):
        pass


@contextlib.contextmanager
def second_device(*, indexes_on_cpu=False):
    """Have the second device as long as the block runs; `indexes_on_cpu` allows them as a GPU."""
    autocast = torch.autocast

    def autocast_of_others(device_type, *args, **kwargs):
        second = device_type == NAME  # where it casts nothing
        return contextlib.nullcontext() if second else autocast(device_type, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, _SecondDevice():
        patch.setattr(SecondTensor, "allowed", COPIES + INDEXING if indexes_on_cpu else COPIES)
        patch.setattr(torch, "autocast", autocast_of_others)
        patch.setattr(torch, NAME, _Module(), raising=False)
        for function in (torch.tensor, torch.as_tensor):
            patch.setattr(torch, function.__name__, _from_data(function))
        yield torch.device(NAME, 0)

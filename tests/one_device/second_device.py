"""A second device where there is only a CPU: it finds tensors that are made on the wrong one.

PyTorch knows a device "lazy", for which this build has no kernels. Here its tensors hold an
ordinary tensor on the CPU with which everything is computed: `x.device`, `zeros_like(x)` and
autograd see another device, while also what depends on values runs (NMS, sampling, matching), and
results can be compared. Like a GPU it refuses an operation on its tensors and those of the CPU, but
for copies and for numbers without dimensions; stricter than a GPU, it also refuses indexes that lie
on the CPU unless that is allowed, because they have to be copied first. `.numpy()` raises.

What a GPU has of its own is not here: kernels, streams, autocast (it casts nothing). Nothing is
registered with PyTorch, so that other tests of the process are not concerned.
"""

import contextlib

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

NAME = "lazy"
COPIES = ("aten::_to_copy", "aten::copy_")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class _Rules:
    allowed = COPIES


class TwoDevicesError(RuntimeError):
    """An operation that takes tensors of two devices."""


def _refuse_two_devices(func, tensors):
    """Raise for an operation that a GPU would refuse."""
    devices = {str(tensor.device) for tensor in tensors if tensor.ndim}
    scalars = {str(tensor.device) for tensor in tensors if not tensor.ndim} - {"cpu"}
    if len(devices | scalars) > 1 and func._schema.name not in _Rules.allowed:
        shapes = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in tensors)
        raise TwoDevicesError(f"{func} takes tensors of two devices: {shapes}")


class SecondTensor(torch.Tensor):
    """A tensor of the second device: a shell, and the values on the CPU."""

    @staticmethod
    def __new__(cls, values):
        with torch.inference_mode(False):  # views of parameters are none of inference alone
            return torch.Tensor._make_wrapper_subclass(
                cls, values.size(), strides=values.stride(), dtype=values.dtype,
                storage_offset=values.storage_offset(), device=torch.device(NAME, 0),
            )  # fmt: skip

    def __init__(self, values):
        self.values_on_cpu = values

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __getitem__(self, index):
        return super().__getitem__(_without_lists(index, self.device))

    def __setitem__(self, index, value):
        super().__setitem__(_without_lists(index, self.device), value)

    def new_tensor(self, data, **options):
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device} | options)

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self):
        return f"SecondTensor({self.values_on_cpu!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


def _from_data(function):
    """`torch.tensor` and `as_tensor` copy to a device in a way that passes this file by."""

    def make(data, *, device=None, requires_grad=False, **options):
        if device is None or not _is_second(device):
            made = function(data, device=device, **options)
        else:
            here = data.device if isinstance(data, torch.Tensor) else "cpu"
            made = function(data, device=here, **options).to(device)
        return made.requires_grad_() if requires_grad else made

    return make


class _SecondDevice(TorchDispatchMode):
    """Makes the tensors that are asked for on the second device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


def _compute(func, args, kwargs):
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _SecondDevice():  # in inference mode; else its parts are what comes here
            return func.decompose(*args, **kwargs)
    tensors = _tensors(args, kwargs)
    _refuse_two_devices(func, tensors)
    asked = kwargs.get("device")
    if func is torch.ops.aten.copy_.default:  # into the first
        here = isinstance(args[0], SecondTensor)
    elif asked is not None:
        here = _is_second(asked)
    else:
        here = any(isinstance(tensor, SecondTensor) for tensor in tensors)
    inner = kwargs | {"device": torch.device("cpu")} if asked is not None and here else kwargs
    out = func(*_map(_values, args), **_map(_values, inner))
    if not here:
        return out
    out = _map(lambda t: t if isinstance(t, SecondTensor) else SecondTensor(t), out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _without_lists(index, device):
    """PyTorch would make tensors of them as `torch.tensor` does."""
    if isinstance(index, list):
        return torch.tensor(index, device=device)
    if isinstance(index, tuple):
        return tuple(_without_lists(part, device) for part in index)
    return index


def _is_second(device):
    return torch.device(device).type == NAME


def _values(tensor):
    return tensor.values_on_cpu if isinstance(tensor, SecondTensor) else tensor


def _map(function, nested):
    return pytree.tree_map_only(torch.Tensor, function, nested)


def _tensors(args, kwargs):
    return [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]


class _Module:
    """What PyTorch's checkpoints of activations ask a device for; random numbers are the CPU's."""

    def device(self, index):
        del index
        return contextlib.nullcontext()

    def get_rng_state(self):
        return torch.get_rng_state()

    def set_rng_state(self, state):
        del state


@contextlib.contextmanager
def second_device(*, indexes_on_cpu=False):
    """Have the second device, as long as the block runs; gives the `torch.device`.

    Args:
        indexes_on_cpu: Allow them, as a GPU does; frameworks have some.
    """
    autocast = torch.autocast

    def autocast_of_others(device_type, *args, **kwargs):
        if device_type == NAME:
            return contextlib.nullcontext()
        return autocast(device_type, *args, **kwargs)

    _Rules.allowed = COPIES + INDEXING if indexes_on_cpu else COPIES
    with pytest.MonkeyPatch.context() as patch, _SecondDevice():
        patch.setattr(torch, "autocast", autocast_of_others)
        patch.setattr(torch, NAME, _Module(), raising=False)
        for function in (torch.tensor, torch.as_tensor):
            patch.setattr(torch, function.__name__, _from_data(function))
        yield torch.device(NAME, 0)

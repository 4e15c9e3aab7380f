"""Memory of a training step, counted on PyTorch's fake tensors, which have a size and no content.

Parameters are fake from the moment when a module registers them, and so is all that is computed of
them. What a loss reads besides, such as boxes, is small and real.
"""

import math
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from importlib import import_module
from io import StringIO
from typing import Any, NamedTuple
from unittest.mock import patch

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eva_backbone.layers import StochasticDepth
from eva_backbone.lora import LoraSettings, add_adapters
from eva_backbone.recording import quiet
from eva_backbone.resample import CACHES
from eva_backbone.vit import VisionTransformer

aten = torch.ops.aten
MODULES = {task: f"eva_{task}.training" for task in ("classification", "pretrain", "video")} | {
    "clip": "eva_contrastive.training",
    **{task: f"eva_{task}.planning" for task in ("detection", "mmdetection", "segmentation")},
}
CARDS = (12, 24, 40, 80)  # GB
NCCL = 2**30  # bytes of its channels' buffers, an allowance
OBJECTS = 8  # of an image whose regions are sampled
_FILLED = (aten.new_zeros.default, aten.new_ones.default, aten.new_full.default)
_SMALL = 2**16  # values of such a tensor that is real


class Settings(NamedTuple):
    """What a task's training calls the precision of a step, and its ViT."""

    fp32: tuple[str, ...]
    bf16: tuple[str, ...]
    vit: str

    def checkpointing(self, value: bool) -> tuple[str, ...]:
        """Return the words that switch activation checkpointing on or off."""
        return (f"{self.vit}.activation_checkpointing={value}",)


_ENGINE = Settings(("run.precision=fp32",), ("run.precision=bf16", "run.zero_stage=1"), "model")
_MMENGINE = Settings(
    ("optim_wrapper.type=OptimWrapper",),
    (
        "optim_wrapper.type=AmpOptimWrapper",
        "optim_wrapper.dtype=bfloat16",
        "optim_wrapper.loss_scale=1.0",
    ),
    "model.backbone",
)
SETTINGS: Mapping[str, Settings] = {
    **dict.fromkeys(("classification", "video", "clip"), _ENGINE),
    **dict.fromkeys(("mmdetection", "segmentation"), _MMENGINE),
    "pretrain": _ENGINE._replace(vit="student"),
    "detection": Settings(
        ("train.amp.enabled=False",),
        (
            "train.amp.enabled=True",
            "train.amp.precision=bf16",
            "train.ddp.fp16_compression=False",
        ),
        "model.backbone.net",
    ),
}


class MeasuredStep(NamedTuple):
    """An optimizer step of a model, built inside `measure`."""

    model: nn.Module
    loss: Callable[[], Tensor]  # forward pass of a micro-batch
    state: int  # bytes of the optimizer for each trained weight
    batch: int  # samples of a micro-batch of one process
    accumulate: int  # micro-batches of a step
    side: int  # of the images, in pixels
    update: int = 0  # bytes that the optimizer takes for a moment
    processes: int = 1  # of PyTorch's data parallelism, in whose buckets gradients lie


class _Follower(TorchDispatchMode):
    """Sums up the storages that operators allocate, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.peak = 0
        self.gradients = self.rest = 0  # those of parameters; the peak of all else
        self.storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and isinstance(args[0], FakeTensor):
            answer = _answer(func, args[0])
            if answer is not None:
                return answer
            args = _replace_by_real(func, args)
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        values = (result,) if len(returns) == 1 else result or ()
        for argument, value in zip(returns, values):  # noqa: B905
            if argument.alias_info is None:  # not a view
                for tensor in tree_leaves(value):
                    if isinstance(tensor, Tensor):
                        self.add(tensor)
        return result

    def add(self, tensor: Tensor) -> None:
        """Follow the storage of a tensor."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.storages:
            self.storages[key] = weakref.ref(storage, lambda _: self._forget(key, size))
            self.total += size
            self.peak = max(self.peak, self.total)
            self.rest = max(self.rest, self.total - self.gradients)

    def keep(self, parameter: Any) -> None:
        """Note a gradient, which is there from now on."""
        self.gradients += parameter.grad.nbytes

    def _forget(self, key: int, size: int) -> None:
        del self.storages[key]
        self.total -= size


def _answer(func: Any, tensor: FakeTensor) -> Any:
    """Answer what an operator asks of a fake tensor without running it; None runs it.

    Of fake values nothing is exceptional: `any` is false, `all` true, and a number is 1 or 0.0.
    """
    if func is torch.ops.prim.device.default:  # asked most often
        return tensor.fake_device
    if func._schema.name.endswith("_") and torch.Tag.inplace_view not in func.tags:
        return tensor  # of an operator in place
    with no_dispatch():
        if func in (aten.any.default, aten.all.default):
            return torch.tensor(func is aten.all.default)
        if func is aten.nonzero.default:
            return torch.ones(tensor.shape).nonzero()
        if func is aten._local_scalar_dense.default:
            return torch.zeros((), dtype=tensor.dtype).item() or tensor.dtype == torch.int64
    return None


def _replace_by_real(func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace arguments, the first of which is fake, so that a result has a size that is known."""
    with no_dispatch():
        if func in _FILLED and math.prod(args[1]) <= _SMALL:
            return (torch.empty(0, dtype=args[0].dtype), *args[1:])
        if func is aten.index.Tensor:
            return (args[0], [part for index in args[1] for part in _places(index)])
    return args


def _places(index: Any) -> tuple[Any, ...]:
    """Find the places where a real mask is true, whose number is known."""
    real = isinstance(index, Tensor) and not isinstance(index, FakeTensor)
    return index.nonzero(as_tuple=True) if real and index.dtype is torch.bool else (index,)


def _convert(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Convert a module, as `to` does, which cannot swap fake parameters."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(
                    change(parameter.detach()), parameter.requires_grad
                )
        part._buffers.update({k: v if v is None else change(v) for k, v in part._buffers.items()})
    return module


def _build_without_content(build: Callable[[], MeasuredStep], follower: _Follower) -> MeasuredStep:
    """Build a step whose parameters are fake from the moment when a module registers them."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def empty(module: nn.Module, name: str, parameter: Any) -> nn.Parameter | None:
        if isinstance(parameter, FakeTensor) or parameter is None:
            return None
        emptied = FakeTensor(fake, parameter.detach().to("meta"), parameter.device)
        follower.add(emptied)
        return nn.Parameter(emptied, requires_grad=parameter.requires_grad)

    register: Any = register_module_parameter_registration_hook
    with register(empty), patch.object(nn.Module, "_apply", _convert):
        return build()


def measure(build: Callable[[], MeasuredStep]) -> dict[str, int]:
    """Follow an optimizer step of a model that `build` makes; a billion parameters take seconds.

    Returns:
        Samples of a forward pass, forward passes of a step, pixels of a side, numbers of
        parameters, and of the ViT's first blocks that are frozen; bytes of weights (with buffers
        and frozen networks), gradients, optimizer, of the activations that a forward pass keeps,
        and of the peak.
    """
    for results in CACHES:  # an earlier step's are not followed
        results.clear()
    with _Follower() as follower:
        step = _build_without_content(build, follower)
        for part in step.model.modules():
            if isinstance(part, StochasticDepth):
                part.rate = 0.0  # nothing is left out: the most that can happen
        trained = [value for value in step.model.parameters() if value.requires_grad]
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(follower.keep)
        follower.peak = weights = follower.total
        loss = step.loss()
        activations = follower.total - weights
        loss.backward()
        del loss
    vits = [part.blocks for part in step.model.modules() if isinstance(part, VisionTransformer)]
    learning = [[any(p.requires_grad for p in block.parameters()) for block in vit] for vit in vits]
    gradients, trainable = follower.gradients, sum(parameter.numel() for parameter in trained)
    state, passes = step.state * trainable, max(follower.peak, follower.total + step.update)
    # all but the first micro-batch begin with gradients, and buckets are there all the time
    before = (step.accumulate > 1) + (step.processes > 1)
    passes = max(passes, follower.rest + before * gradients)
    return {
        "batch": step.batch,
        "accumulate": step.accumulate,
        "side": step.side,
        "parameters": sum(parameter.numel() for parameter in step.model.parameters()),
        "trainable": trainable,
        "frozen": min(([*blocks, True].index(True) for blocks in learning), default=0),
        "processes": step.processes,
        "weights": weights,
        "gradients": gradients,
        "optimizer": state,
        "activations": activations,
        "peak": passes + state,  # of the second step, which has a state from the first
    }


def add_configured_adapters(model: nn.Module, lora: Mapping[str, Any] | None) -> None:
    """Add the adapters of a config to a model, if it has some."""
    settings = LoraSettings.of(lora)
    if settings.rank:
        add_adapters(model, settings)


def optimizer_bytes_per_weight(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> int:
    """Count the bytes that an optimizer keeps for a weight, by one step of a small one."""
    weight = nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.ones(8, 8)
    optimizer = build([weight])
    optimizer.step()
    states = tree_leaves(optimizer.state[weight])
    return sum(tensor.nbytes for tensor in states if isinstance(tensor, Tensor)) // weight.numel()


def make_boxes(count: int, side: int) -> Tensor:
    """Lay boxes (count, 4) of an image: objects, twice as often as a detector wants, and others."""
    corner = torch.linspace(0, side / 2, OBJECTS)[:, None].expand(-1, 2)
    objects = torch.cat([corner, corner + side / 4], dim=1).repeat(count // OBJECTS + 1, 1)[:count]
    objects[len(objects) // 2 :] /= 2
    return objects


def fits(step: Mapping[str, int], memory: int) -> bool:
    """Return whether a measured step fits into a memory, a tenth of which context and gaps take."""
    of_processes = NCCL if step["processes"] > 1 else 0
    return step["peak"] + of_processes <= 0.9 * memory


def plan(
    module: str, words: Sequence[str], refused: tuple[type[BaseException], ...] = ()
) -> dict[str, int]:
    """Measure a step of a command line; nothing if it is `refused`.

    `module` has `read_recipe`, which reads words, and `step`, which builds a step of the result.
    """
    task = import_module(module)
    output = StringIO() if refused else sys.stderr
    with suppress(*refused), redirect_stderr(output), quiet():
        config = task.read_recipe(words)
        return measure(lambda: task.step(config))
    return {}


def free_memory(device: str = "auto") -> int:
    """Return the free memory of the GPU, all that the smallest of several has, or the machine's."""
    if device != "cpu" and torch.cuda.is_available():
        if "WORLD_SIZE" not in os.environ:
            return int(torch.cuda.mem_get_info()[0])
        every = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        return min(int(device.total_memory) for device in every)
    return int(psutil.virtual_memory().available)


def replace_auto_batch(
    words: Sequence[str], module: str, device_of: Callable[[Sequence[str]], str]
) -> tuple[list[str], str]:
    """Replace `--batch auto` of a command line by the largest number that fits, and say so."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.cuda.is_available():
        raise ValueError("--batch auto of several processes needs GPUs: give a number")
    position = words.index("--batch")
    rest = [*words[:position], *words[position + 2 :]]
    memory = free_memory(device_of(rest))
    own = plan(module, rest)
    samples, best, peak = own["batch"] * own["accumulate"], 0, 0
    for batch in (divisor for divisor in range(1, samples + 1) if samples % divisor == 0):
        usage = plan(module, [*rest, "--batch", str(batch)], (ValueError, SystemExit))
        if usage and best and not fits(usage, memory):
            break
        best, peak = (batch, usage["peak"]) if usage else (best, peak)
    line = f"--batch auto: {best} of {samples} samples at once, {peak / 2**30:.1f} GiB planned"
    return [*rest, "--batch", str(best)], f"{line}, {memory / 2**30:.1f} GiB free"

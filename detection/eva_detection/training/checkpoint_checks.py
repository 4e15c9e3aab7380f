"""Checks that a checkpoint belongs to this run, before anything is restored.

detectron2 and torch load what fits and warn of the rest, or fail some steps later.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.listing import listed

_TRAINER = {"iteration", "optimizer", "hooks", "grad_scaler", "stream", "optimizer_states"}
_STREAM = {"seed", "processes", "total_batch_size", "images", "batches"}
_MOST_BATCHES = 4096  # of one optimizer step; more would take forever to skip
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


def check_model(saved: Any, model: nn.Module) -> None:
    """Check the weights of a checkpoint.

    Args:
        saved: What it holds under `model`.
        model: The detector.

    Raises:
        ValueError: If names or shapes are not the model's, or values are not finite.
    """
    if not isinstance(saved, Mapping) or not all(isinstance(v, Tensor) for v in saved.values()):
        raise ValueError("it holds no weights of a model")
    expected = model.state_dict()
    missing = [name for name in expected if name not in saved]
    unknown = [str(name) for name in saved if name not in expected]
    if missing or unknown:
        lacks = (
            f"lacks {len(missing)} of the model's tensors ({listed(missing)})" if missing else ""
        )
        has = (
            f"has {len(unknown)} that the model does not have ({listed(unknown)})"
            if unknown
            else ""
        )
        raise ValueError(f"it {' and '.join(filter(None, (lacks, has)))}: it is of another model")
    for name, value in expected.items():
        _check_tensor(saved[name], value, name)


def _check_tensor(saved: Tensor, like: Tensor, name: str) -> None:
    if saved.shape != like.shape:
        raise ValueError(
            f"{name} is {tuple(saved.shape)} in it and {tuple(like.shape)} here: it is of another "
            "model"
        )
    if saved.is_floating_point() != like.is_floating_point() or saved.is_complex():
        raise ValueError(f"{name} is of type {saved.dtype} in it and {like.dtype} here")
    if saved.layout != torch.strided or saved.is_quantized or saved.is_meta:
        raise ValueError(f"{name} is not a plain tensor")
    _check_finite(saved, name)


def _check_finite(value: Tensor, name: str) -> None:
    # of one reduction: a sum is finite only if all values are, but may overflow where they are
    quick = not value.is_floating_point() or math.isfinite(value.sum(dtype=torch.float64).item())
    if not quick and not value.isfinite().all():
        raise ValueError(f"{name} has values that are infinite or not a number")


def check_trainer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check the state of training in a checkpoint.

    Args:
        saved: What it holds under `trainer`.
        optimizer: Optimizer of this run.

    Raises:
        ValueError: If the state is damaged, or of a run with other parameters or another
            optimizer.
    """
    if not isinstance(saved, Mapping) or not saved.keys() >= {"iteration", "optimizer"}:
        raise ValueError("it holds no state of a training (only weights?)")
    unknown = [str(name) for name in saved if name not in _TRAINER]
    if unknown:
        raise ValueError(
            f"its state of the training has {listed(unknown)}, which nothing here reads"
        )
    iteration = _whole(saved["iteration"], "iteration")
    _check_optimizer(saved["optimizer"], optimizer)
    count = saved.get("optimizer_states", len(saved["optimizer"]["state"]))
    if count != len(saved["optimizer"]["state"]):
        raise ValueError(
            f"its optimizer has a state for {len(saved['optimizer']['state'])} of {count} tensors"
        )
    _check_hooks(saved.get("hooks", {}), len(optimizer.param_groups))
    _check_scaler(saved.get("grad_scaler") or {})
    _check_stream(saved.get("stream") or {}, iteration)


def _whole(value: Any, name: str, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"its {name} is {value!r} and not a number from {least}")
    return value


def _check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    groups, state = (saved.get(key) if isinstance(saved, Mapping) else None for key in _OPTIMIZER)
    if not isinstance(groups, list) or not isinstance(state, Mapping):
        raise ValueError("the state of its optimizer is damaged")
    kinds = [
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    ]
    if not all(kinds):
        raise ValueError("the state of its optimizer is damaged")
    mine = optimizer.state_dict()["param_groups"]
    sizes, expected = ([len(group["params"]) for group in part] for part in (groups, mine))
    if sizes != expected:
        raise ValueError(
            f"its optimizer has {sum(sizes)} tensors in {len(sizes)} groups, this run "
            f"{sum(expected)} in {len(expected)}: it is of another model or optimizer"
        )
    for group, like in zip(groups, mine, strict=True):
        if group["params"] != like["params"]:
            raise ValueError("the state of its optimizer is damaged")
        for name, value in like.items():
            if name != "params" and not _alike(group.get(name, value), value):
                raise ValueError(f"its optimizer has {name}={group[name]!r}, this run {value!r}")
        if not _alike(group.get("initial_lr", 0.0), 0.0):
            raise ValueError(f"its optimizer has initial_lr={group['initial_lr']!r}")
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for index, values in state.items():
        if index not in range(len(parameters)) or not isinstance(values, Mapping):
            raise ValueError("the state of its optimizer is damaged")
        _check_moments(values, parameters[index], index, optimizer)


_OPTIMIZER = ("param_groups", "state")


def _alike(saved: Any, like: Any) -> bool:
    """Return whether a setting is of the same kind; its value may be changed on purpose."""
    if isinstance(like, (tuple, list)):
        right = isinstance(saved, (tuple, list)) and len(saved) == len(like)
        return right and all(map(_alike, saved, like))
    if isinstance(like, bool) or like is None:
        return saved is None or isinstance(saved, bool)
    if isinstance(like, (int, float)):
        number = isinstance(saved, (int, float)) and not isinstance(saved, bool)
        return number and math.isfinite(saved)
    return True


def _check_moments(
    values: Mapping[str, Any], parameter: Tensor, index: int, optimizer: torch.optim.Optimizer
) -> None:
    adam = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    if adam and not values.keys() >= _ADAM:
        raise ValueError("the state of its optimizer is not Adam's: it is of another optimizer")
    for name, value in values.items():
        where = f"{name} of tensor {index} of its optimizer"
        if isinstance(value, Tensor):
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(
                    f"{where} is {tuple(value.shape)}, the parameter {tuple(parameter.shape)}"
                )
            _check_finite(value, where)
            if name == "step" and not value >= 0:
                raise ValueError(f"{where} is {value.item()}")
        elif name in _ADAM - {"step"} or not _alike(value, 0.0 if name == "step" else value):
            raise ValueError(f"{where} is {value!r}")


def _check_hooks(saved: Any, groups: int) -> None:
    if not isinstance(saved, Mapping) or not all(isinstance(v, Mapping) for v in saved.values()):
        raise ValueError("the state of its hooks is damaged")
    schedule = saved.get("LRScheduler", {})
    if schedule:
        rates = schedule.get("base_lrs")
        if not isinstance(rates, list) or not all(_alike(rate, 0.0) for rate in rates):
            raise ValueError("its learning-rate schedule is damaged")
        if len(rates) != groups:
            raise ValueError(
                f"its learning-rate schedule has {len(rates)} groups, this run {groups}"
            )
        _whole(schedule.get("last_epoch"), "place in the learning-rate schedule")
    for name, history in saved.get("MetricsHistory", {}).items():
        pairs = isinstance(history, list) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in history
        )
        if not pairs or not all(
            isinstance(value, (int, float)) and isinstance(at, int) for value, at in history
        ):
            raise ValueError(f"its history of {name} is damaged")


def _check_scaler(saved: Any) -> None:
    if not isinstance(saved, Mapping) or not all(_alike(value, 0.0) for value in saved.values()):
        raise ValueError("the state of its loss scale is damaged")
    if saved and not saved.get("scale", 0) > 0:
        raise ValueError(f"its loss scale is {saved.get('scale')}")


def _check_stream(saved: Any, iteration: int) -> None:
    if not saved:  # of detectron2's own tool
        return
    if not isinstance(saved, Mapping) or saved.keys() != _STREAM:
        raise ValueError("its place in the data is damaged")
    for name, value in saved.items():
        _whole(
            value, f"{name} (place in the data)", least=int(name in _STREAM - {"seed", "batches"})
        )
    if saved["batches"] > (iteration + 1) * _MOST_BATCHES:
        raise ValueError(f"it claims {saved['batches']} batches for {iteration + 1} iterations")

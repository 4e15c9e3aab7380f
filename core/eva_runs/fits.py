"""Whether a checkpoint is of this run: model and optimizer, before anything is restored.

torch and the frameworks load what fits and warn of the rest, or fail some steps later.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SHOWN = 4  # names in a message


def check_model(saved: Any, model: nn.Module) -> None:
    """Refuse weights, name -> tensor, that are not exactly a model's.

    Raises:
        ValueError: Naming what is missing, unknown, of another shape or not finite.
    """
    if not isinstance(saved, Mapping) or not all(isinstance(v, Tensor) for v in saved.values()):
        _refuse(["holds no weights"], "model")
    expected = model.state_dict()
    wrong = [f"lacks {name}" for name in expected if name not in saved]
    wrong += [f"has {name}, which the model lacks" for name in saved if name not in expected]
    for name in expected.keys() & saved.keys():
        mine, other = expected[name], saved[name]
        if mine.shape != other.shape or mine.is_floating_point() != other.is_floating_point():
            here, theirs = (f"{tuple(t.shape)} {t.dtype}" for t in (mine, other))
            wrong.append(f"has {name} as {theirs}, the model as {here}")
        elif not _is_finite(other):
            wrong.append(f"has values in {name} that are infinite or NaN")
    _refuse(wrong, "model")


def check_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    """Refuse the `state_dict` of an optimizer with other parameters, or with values to stumble on.

    Raises:
        ValueError: Naming the parameter that does not fit.
    """
    try:
        groups, states = saved["param_groups"], saved["state"]
        indexes = [index for group in groups for index in group["params"]]
        sizes = [len(group["params"]) for group in groups]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the checkpoint holds no state of an optimizer: {error!r}") from error
    mine = optimizer.param_groups
    if sizes != [len(group["params"]) for group in mine]:
        own = f"{sum(len(group['params']) for group in mine)} in {len(mine)}"
        _refuse([f"has {sum(sizes)} tensors in {len(sizes)} groups, this run {own}"], "optimizer")
    names = {"exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.AdamW) else set()
    parameters = [value for group in mine for value in group["params"]]
    wrong = []
    for index, parameter in zip(indexes, parameters, strict=True):
        state = states.get(index) or {}
        if state and not names <= state.keys():
            wrong.append(f"has a state of parameter {index} that is not Adam's")
        for name, value in state.items():
            if not isinstance(value, Tensor):
                continue
            if value.ndim and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)}, the parameter {tuple(parameter.shape)}"
                wrong.append(f"has {name} of parameter {index} as {shapes}")
            elif not _is_finite(value):
                wrong.append(f"has values in {name} of parameter {index} that are infinite or NaN")
    _refuse(wrong, "optimizer")


def take_settings(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Give the `state_dict` of an optimizer the learning rates and weight decay of this config.

    What a schedule has made of them keeps its share of their first value.
    """
    for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        for name in ("lr", "weight_decay"):
            first = f"initial_{name}"
            value = own.get(first, own[name])
            if first not in group:
                group[name] = value
            elif group[first] != value:
                share = group[name] / group[first] if group[first] else 1.0
                group |= {name: share * value, first: value}


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    # a sum, one reduction, is finite only if all values are, but may overflow where they are
    total = value.sum(dtype=torch.float64)
    return bool(total.isfinite() or value.isfinite().all())


def _refuse(wrong: list[str], part: str) -> None:
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"the checkpoint is of another {part}: it {', '.join(wrong[:_SHOWN])}{more}; continue "
            "with the settings of its run, or begin another run"
        )

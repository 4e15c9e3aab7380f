"""Whether a checkpoint is of this run: model and optimizer, before anything is restored.

torch and the frameworks load what fits and warn of the rest, or fail some steps later.
"""

import math
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
    """Refuse the `state_dict` of an optimizer with other parameters or of another kind.

    Raises:
        ValueError: Naming the group or parameter that does not fit.
    """
    try:
        groups, states = saved["param_groups"], saved["state"]
        indexes = [index for group in groups for index in group["params"]]
        sizes, unknown = [len(group["params"]) for group in groups], states.keys() - {*indexes}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the checkpoint holds no state of an optimizer: {error!r}") from error
    mine = optimizer.param_groups
    if sizes != [len(group["params"]) for group in mine]:
        own = f"{sum(len(group['params']) for group in mine)} in {len(mine)}"
        _refuse([f"has {sum(sizes)} tensors in {len(sizes)} groups, this run {own}"], "optimizer")
    wrong = [f"has a state of parameter {index!r}, which is in no group" for index in unknown]
    for number, (theirs, ours) in enumerate(zip(groups, mine, strict=True)):
        wrong += [f"lacks {key} of group {number}" for key in ours.keys() - theirs.keys()]
        for key in theirs.keys() & ours.keys() - {"params"}:
            if not _alike(theirs[key], ours[key]):
                wrong.append(f"has {key}={theirs[key]!r} in group {number}")
    parameters = [value for group in mine for value in group["params"]]
    adam = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    for index, parameter in zip(indexes, parameters, strict=True):
        wrong += _state_problems(states.get(index, {}), parameter, index, adam=adam)
    _refuse(wrong, "optimizer")


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    # a sum, one reduction, is finite only if all values are, but may overflow where they are
    total = value.sum(dtype=torch.float64)
    return bool(total.isfinite() or value.isfinite().all())


def _state_problems(state: Any, parameter: Tensor, index: Any, *, adam: bool) -> list[str]:
    if not isinstance(state, Mapping):
        return [f"has a damaged state of parameter {index}"]
    if adam and state and not {"exp_avg", "exp_avg_sq"} <= state.keys():
        return [f"has a state of parameter {index} that is not Adam's"]
    wrong = []
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if value.ndim and value.shape != parameter.shape:
            shapes = f"{tuple(value.shape)}, the parameter {tuple(parameter.shape)}"
            wrong.append(f"has {name} of parameter {index} as {shapes}")
        elif not _is_finite(value):
            wrong.append(f"has values in {name} of parameter {index} that are infinite or NaN")
    return wrong


def _alike(saved: Any, like: Any) -> bool:
    """Return whether a setting is of the same kind; its value may be changed on purpose."""
    if isinstance(like, (tuple, list)):
        same = isinstance(saved, (tuple, list)) and len(saved) == len(like)
        return same and all(map(_alike, saved, like))
    if isinstance(like, bool) or like is None:
        return saved is None or isinstance(saved, bool)
    return not isinstance(like, (int, float)) or (
        isinstance(saved, (int, float)) and math.isfinite(saved)
    )


def _refuse(wrong: list[str], part: str) -> None:
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"the checkpoint is of another {part}: it {', '.join(wrong[:_SHOWN])}{more}; continue "
            "with the settings of its run, or begin another run"
        )

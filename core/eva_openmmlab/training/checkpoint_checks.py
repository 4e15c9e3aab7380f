"""Whether a checkpoint is of this run: model, optimizer and schedules, before any is taken over."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.listing import listed
from eva_openmmlab.training.checkpoint_files import UnfitCheckpointError

_SETTINGS = ("initial_lr", "weight_decay", "betas", "eps", "momentum", "lr_scale")
_SHOWN = 4  # problems of one kind in a message


def check_fits(
    file: Path,
    content: Mapping[str, Any],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedulers: Sequence[Any],
    max_iters: int,
) -> list[str]:
    """Refuse a checkpoint of another run, which torch and mmengine would load as far as it goes.

    Args:
        file: Path of the checkpoint, for the message.
        content: Content as `read_checkpoint` returns it.
        model: The model.
        optimizer: Optimizer of the run.
        schedulers: Schedules of the run.
        max_iters: Iterations of the run.

    Returns:
        Settings in which the config differs from the checkpoint; the checkpoint's are kept.

    Raises:
        UnfitCheckpointError: Naming what differs or is not finite.
    """
    iteration = content["meta"]["iter"]
    if iteration > max_iters:
        raise UnfitCheckpointError(
            f"{file} is at iteration {iteration}, beyond train_cfg.max_iters={max_iters}"
        )
    problems = {
        "model": _model_problem(model, content["state_dict"]),
        "optimizer": _optimizer_problem(optimizer, content["optimizer"]),
        "param_scheduler": _scheduler_problem(schedulers, content.get("param_schedulers", [])),
    }
    for part, problem in problems.items():
        if problem:
            raise UnfitCheckpointError(
                f"{file} does not fit the {part} of the config, so that the run cannot continue: "
                f"{problem}; continue with the run's own config, or begin another run"
            )
    groups = zip(content["optimizer"]["param_groups"], optimizer.param_groups, strict=True)
    changed = [
        f"{name}={own[name]!r} ({saved[name]!r} is kept)"
        for saved, own in groups
        for name in _SETTINGS
        if name in own and saved[name] != own[name]
    ]
    return list(dict.fromkeys(changed))[:_SHOWN]


def _model_problem(model: nn.Module, saved: Mapping[str, Any]) -> str:
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in saved]
    wrong += [f"{name} is not in the model" for name in saved if name not in own]
    for name, value in own.items():
        if name in saved:
            found = saved[name]
            if not isinstance(found, Tensor):
                wrong.append(f"{name} is not a tensor")
            elif found.shape != value.shape:
                wrong.append(f"{name} {tuple(found.shape)} -> {tuple(value.shape)}")
            elif found.dtype != value.dtype:
                wrong.append(f"{name} {found.dtype} -> {value.dtype}")
            elif not found.isfinite().all():
                wrong.append(f"{name} is infinite or NaN")
    return listed(wrong, _SHOWN) if wrong else ""


def _optimizer_problem(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> str:
    groups, states, own = saved.get("param_groups"), saved.get("state"), optimizer.param_groups
    if not isinstance(groups, list) or not isinstance(states, Mapping):
        return "it has no param_groups and state"
    if len(groups) != len(own):
        return f"it has {len(groups)} groups of parameters and the config {len(own)}"
    numbers: list[Any] = []
    for number, (found, group) in enumerate(zip(groups, own, strict=True)):
        names = found.get("params") if isinstance(found, Mapping) else None
        if not isinstance(names, list) or len(names) != len(group["params"]):
            return f"group {number} has other parameters"
        if missing := sorted({*group} - {*found}):
            return f"group {number} lacks {listed(missing, _SHOWN)}, it is of another optimizer"
        if wrong := [name for name, value in group.items() if not _alike(found[name], type(value))]:
            return f"group {number} has {wrong[0]}={found[wrong[0]]!r}"
        numbers += names
    base = saved.get("base_param_settings")  # mmengine's, of which it logs the learning rate
    if base is not None and not (isinstance(base, Mapping) and _alike(base.get("lr"), float)):
        return f"its base_param_settings is {base!r}"
    if unknown := [number for number in states if number not in numbers]:
        return f"it has a state of parameter {unknown[0]!r}, which is in no group"
    scaled = "loss_scaler" in saved  # the first steps of fp16 are skipped
    if not states and not scaled and isinstance(optimizer, torch.optim.Adam):  # AdamW too
        return "it has no state"
    parameters = [value for group in own for value in group["params"]]
    return _state_problem(numbers, parameters, states)


def _state_problem(
    numbers: Sequence[Any], parameters: Sequence[Tensor], states: Mapping[Any, Any]
) -> str:
    if not all(isinstance(state, Mapping) for state in states.values()):
        return "the state of a parameter is damaged"
    if len({frozenset(state) for state in states.values()}) > 1:
        return "its parameters have different kinds of state"
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in states.get(number, {}).items():
            if not isinstance(value, Tensor):
                continue
            if value.numel() != 1 and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)} -> {tuple(parameter.shape)}"
                return f"{name} of parameter {number} {shapes}"
            if not value.isfinite().all():
                return f"{name} of parameter {number} is infinite or NaN"
    return ""


def _scheduler_problem(schedulers: Sequence[Any], saved: Any) -> str:
    if not isinstance(saved, list) or len(saved) != len(schedulers):
        count = len(saved) if isinstance(saved, list) else "no list of"
        return f"it has {count} schedules and the config {len(schedulers)}"
    for number, (scheduler, state) in enumerate(zip(schedulers, saved, strict=True)):
        own = scheduler.state_dict()
        if not isinstance(state, Mapping) or {*state} != {*own}:
            return f"schedule {number} is of another kind"
        wrong = [name for name, value in own.items() if not _alike(state[name], type(value))]
        if wrong:
            return f"schedule {number} has {wrong[0]}={state[wrong[0]]!r}"
    return ""


def _alike(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return type(value) in (int, float)
    return isinstance(value, kind | None if kind is bool else kind)

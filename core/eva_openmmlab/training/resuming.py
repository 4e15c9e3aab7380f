"""Resuming a run: a checkpoint is taken over once all of it has been found to fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from eva_openmmlab.config.runs import SAYS
from eva_openmmlab.training.checkpoint_checks import check_fits
from eva_openmmlab.training.checkpoint_files import RUN, Evaluation
from eva_openmmlab.training.checkpoint_hook import EVACheckpointHook
from eva_openmmlab.training.loops import EVATrainLoop


def take_over(
    runner: Any, model: nn.Module, content: dict[str, Any], file: Path, evaluation: Evaluation
) -> None:
    """Continue a run from a checkpoint.

    Args:
        runner: Runner that has built everything.
        model: Its model without a wrapper.
        content: Content as `read_checkpoint` returns it.
        file: The checkpoint, for messages.
        evaluation: Latest evaluation of the run.

    Raises:
        UnfitCheckpointError: If anything does not fit; nothing has been changed then.
    """
    iteration, schedulers = content["meta"]["iter"], runner.param_schedulers or []
    states = content.get("param_schedulers", [])
    changed = check_fits(
        file,
        content,
        model=model,
        optimizer=runner.optim_wrapper.optimizer,
        schedulers=schedulers,
        max_iters=runner.train_loop.max_iters,
    )
    runner.call_hook("after_load_checkpoint", checkpoint=content)
    model.load_state_dict(content["state_dict"])
    runner.message_hub.load_state_dict(content["message_hub"])
    runner.optim_wrapper.load_state_dict(content["optimizer"])
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
    if changed:
        runner.logger.warning(
            "without effect, because the run that continues began otherwise: %s", ", ".join(changed)
        )
    if isinstance(runner.train_loop, EVATrainLoop):
        _place(runner, content, evaluation)
    else:
        runner.logger.warning("without EVATrainLoop the data begin from the start again")
        runner.train_loop._iter = iteration
        runner.train_loop._epoch = content["meta"].get("epoch", 0)


def what_is_saved(
    hook: EVACheckpointHook | None, content: Mapping[str, Any] | None, file: Path
) -> str:
    """Say what of a run is saved, and how to go on.

    Args:
        hook: Its hook, which knows what this start has saved.
        content: Content of the checkpoint that this start continues from; None without one.
        file: That checkpoint.
    """
    if hook is not None and hook.saved_iteration is not None:
        name = hook.filename_tmpl.format(hook.saved_iteration)
        return SAYS.saved(name, done=hook.saved_iteration)
    if content is not None:
        return SAYS.saved(file.name, done=content["meta"]["iter"])
    return SAYS.saved("")


def _place(runner: Any, content: dict[str, Any], evaluation: Evaluation) -> None:
    """Begin in the data where the checkpoint ends; say so where that is not possible."""
    loop, iteration = runner.train_loop, content["meta"]["iter"]
    if evaluation.iteration == iteration:
        runner.message_hub.update_info_dict(evaluation.best)
    now, saved = loop.position(iteration), content.get(RUN)
    saved = saved if isinstance(saved, dict) else {}
    known = all(type(saved.get(name)) is int for name in now)
    seen = saved["samples"] if known and saved["samples"] >= 0 else None
    loop.continue_at(
        iteration=iteration,
        epoch=content["meta"].get("epoch", 0),
        sample=iteration * now["samples_of_a_batch"] if seen is None else seen,
        evaluated=evaluation.iteration,
    )
    fixed = [name for name in now if name != "samples"]
    if not known:
        runner.logger.warning("the checkpoint does not say what the order of its data depends on")
    elif other := [name for name in fixed if saved[name] != now[name]]:
        runner.logger.warning(
            "the order of the data is not that of a run without a break: it began with %s, and "
            "this start has %s",
            ", ".join(f"{name}={saved[name]}" for name in other),
            ", ".join(f"{name}={now[name]}" for name in other),
        )

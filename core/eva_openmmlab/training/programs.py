"""What `train.py` and `test.py` of the projects do once their command line is read.

What can be wrong is looked for from the cheap to the dear: the config without its plugins, the
data, the work folder, the weights; a framework is imported after that.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eva_openmmlab.config.files import import_plugins
from eva_openmmlab.config.options import check_data, check_weights
from eva_openmmlab.config.runs import has_run, used
from eva_openmmlab.quiet_import import without_deepspeed
from eva_openmmlab.terminal.output import LOG, Output, is_first_process, quiet
from eva_openmmlab.training.errors import RunError, building, sentences, settings
from eva_report.terminal import closing_lines
from eva_runs.output_folder import clean_if_refused
from eva_runs.recipes import recipe_folder
from eva_runs.record import STARTS, Kind

Configure = Callable[[argparse.Namespace], Config]


def run_training(
    args: argparse.Namespace,
    configure: Configure,
    *,
    program: str,
    task: str,
    sections: str | None = None,
) -> None:
    """Train as a command line describes.

    Args:
        args: The command line, with the flags of `eva_openmmlab.config.command_line`.
        configure: Function that reads its config, without its plugins.
        program: Name that begins a refusal.
        task: Task of the recipes, which has a demo.
        sections: Module whose `make_report` makes the report of the run; None for no report.

    Raises:
        SystemExit: With one sentence for what the user can fix, or after a signal.
    """
    _run(args, configure, program=program, task=task, kind="training", sections=sections)


def run_test(
    args: argparse.Namespace,
    configure: Configure,
    *,
    program: str,
    task: str,
    sections: str | None = None,
) -> None:
    """Score weights as a command line describes.

    Args:
        args: The command line, with the flags of `eva_openmmlab.config.command_line`.
        configure: Function that reads its config, without its plugins.
        program: Name that begins a refusal.
        task: Task of the recipes, which has a demo.
        sections: Module whose `make_report` makes the report; None for no report.

    Raises:
        SystemExit: With one sentence for what the user can fix.
    """
    _run(args, configure, program=program, task=task, kind="evaluation", sections=sections)


def _run(
    args: argparse.Namespace,
    configure: Configure,
    *,
    program: str,
    task: str,
    kind: Kind,
    sections: str | None,
) -> None:
    began, runner = time.monotonic(), None
    with (
        sentences(program, lambda: runner and Path(runner.work_dir), args.cfg_options),
        quiet() as output,
    ):
        cfg = settings(configure, args)
        _check(cfg, kind)
        with _clean_if_refused(cfg, lambda: runner is not None and runner.started):
            runner, hook = _build(cfg, output, kind, recipe=_name(args.config, task))
            runner.train() if kind == "training" else runner.test()
        from mmengine.dist import barrier, is_main_process

        from eva_openmmlab.evaluation.next_commands import demo_command
        from eva_openmmlab.evaluation.run_report import report_of_run

        barrier()  # here: the other processes do not wait for the report
        if is_main_process():
            page = report_of_run(runner, kind, sections) if sections else None
            weights = _best(runner) if kind == "training" else None
            lines = closing_lines(
                scores="\n".join(_scores(runner, kind, hook.score_lines())),
                duration=time.monotonic() - began,
                weights=weights,
                report=page,
                next_command=demo_command(runner, kind, task=task),
            )
            output.say(lines)
        _leave()


def _check(cfg: Config, kind: Kind) -> None:
    trains = kind == "training"
    loaders = ("train_dataloader", "val_dataloader") if trains else ("test_dataloader",)
    settings(check_data, cfg, loaders)
    if trains and not cfg.resume and has_run(Path(cfg.work_dir)):
        raise RunError(used(Path(cfg.work_dir)))
    settings(check_weights, cfg)
    with without_deepspeed():
        settings(import_plugins, cfg)


def _clean_if_refused(
    cfg: Config, started: Callable[[], bool]
) -> contextlib.AbstractContextManager[None]:
    """Remove what a run that is refused leaves in its work folder, unless it left a traceback."""
    folder, saved = Path(cfg.work_dir), Path(cfg.filename or "config.py").name
    traces = (LOG, STARTS, saved, "[0-9]" * 8 + "_" + "[0-9]" * 6)  # the last is mmengine's
    if not is_first_process():
        return contextlib.nullcontext()
    return clean_if_refused(
        folder, traces, begun=lambda: started() or (folder / "log_rank0.txt").exists()
    )


def _build(cfg: Config, output: Output, kind: Kind, *, recipe: str) -> tuple[Any, Any]:
    from mmengine.registry import RUNNERS

    from eva_backbone import no_init_weights
    from eva_openmmlab.terminal.hook import TerminalHook

    folder = Path(cfg.work_dir)
    loaded = no_init_weights() if kind == "evaluation" else contextlib.nullcontext()
    with building(folder), loaded:
        output.write_to(folder)
        runner = RUNNERS.build(cfg)
    output.take(runner.logger)
    hook = TerminalHook(output, recipe=recipe)
    runner.register_hook(hook)
    return runner, hook


def _leave() -> None:
    """End the process group, if there is one: gloo may abort a process that merely ends."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _name(config: str, task: str) -> str:
    """Return the name of a recipe, or the path of another config."""
    folder = recipe_folder(task)
    path = Path(config)
    inside = path.resolve().is_relative_to(folder)
    return path.resolve().relative_to(folder).with_suffix("").as_posix() if inside else config


def _scores(runner: Any, kind: Kind, last: list[str]) -> list[str]:
    """Add the best scores, whose weights are named, where the last evaluation was not the best."""
    from eva_openmmlab.evaluation.run_report import best_of, logged_scores, was_over
    from eva_openmmlab.terminal.scores import score_lines

    if was_over(runner):
        last = score_lines(logged_scores(Path(runner.work_dir)))
    best, file = best_of(runner) if kind == "training" else ("", "")
    return [f"best     {best} ({file})", *(f"last     {one}" for one in last)] if best else last


def _best(runner: Any) -> Path | None:
    """Find the weights that a user goes on with: the best, else the last."""
    info = runner.message_hub.runtime_info
    best = [value for name, value in info.items() if name.startswith("best_ckpt") and value]
    found = best[0] if best else info.get("last_ckpt")
    return Path(str(found)) if found else None

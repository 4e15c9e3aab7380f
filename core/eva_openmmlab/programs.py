"""Training and evaluation by a command line: mmengine's runner, with checks before it starts."""

import argparse
import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.registry import RUNNERS

from eva_backbone import no_init_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_data.files import home_expanded
from eva_openmmlab.config import import_plugins, load_config, require_data, set_data_root
from eva_openmmlab.hooks import run_hook
from eva_openmmlab.report import (
    best_of,
    best_weights,
    demo_command,
    logged_scores,
    was_over,
    write_report,
)
from eva_openmmlab.run_folder import RECORD, has_run, require_unused
from eva_openmmlab.terminal import LOG, Output, TerminalHook, quiet, score_lines
from eva_report.terminal import closing_lines
from eva_runs import processes
from eva_runs.commands import program_name
from eva_runs.errors import ending, one_line
from eva_runs.output_folder import claimed
from eva_runs.recipes import name_on_own_data, recipe_folder
from eva_runs.record import Kind

Apply = Callable[[Config, argparse.Namespace], Config]
_OWN = ("data", "train_annotations", "train_images", "val_annotations", "val_images")
_TRACES = (LOG, "*.py", "[0-9]" * 8 + "_" + "[0-9]" * 6, "log_rank*.txt")  # mmengine's, and ours


def run_training(args: argparse.Namespace, own_data: Apply, *, task: str, sections: str) -> None:
    """Train as a command line describes.

    Args:
        args: The command line, as `RunParser` reads it.
        own_data: Function that puts own data of the command line into a config and returns a new
            one, or the same if there are none.
        task: Task of the recipes.
        sections: Module whose `make_report` makes the report of the run.

    Raises:
        SystemExit: With a code of `eva_runs.errors`, if it does not end well.
    """

    def configure() -> Config:
        cfg = _configure(args, own_data)
        cfg.resume = bool(cfg.get("resume")) or args.resume
        if args.load_from is not None:
            cfg.load_from = args.load_from
        if args.amp:
            cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
        if not cfg.resume:
            require_unused(Path(cfg.work_dir))
        return cfg

    _run(args, configure, kind="training", task=task, sections=sections)


def run_test(
    args: argparse.Namespace,
    own_data: Apply,
    change: Callable[[Config, argparse.Namespace], None],
    *,
    task: str,
    sections: str,
) -> None:
    """Score weights as a command line describes, in a folder below that of the training.

    Args:
        args: The command line, as `RunParser` reads it.
        own_data: As for `run_training`.
        change: Function that applies the project's own flags to the config.
        task: Task of the recipes.
        sections: As for `run_training`.

    Raises:
        SystemExit: With a code of `eva_runs.errors`, if it does not end well.
    """

    def configure() -> Config:
        cfg = _configure(args, own_data)
        cfg.load_from, cfg.resume = args.weights, False
        if args.work_dir is None:
            folder = Path(cfg.work_dir)
            if args.of_run:  # which may have been moved since
                given = home_expanded(args.weights)
                folder = given if given.is_dir() else given.parent
            cfg.work_dir = str(folder / "test")
        copy = Path(cfg.work_dir) / Path(args.config).name
        if copy.exists() and copy.samefile(args.config):
            raise ValueError(f"--work-dir {cfg.work_dir} holds {args.config}: name another folder")
        change(cfg, args)
        return cfg

    _run(args, configure, kind="evaluation", task=task, sections=sections)


def _configure(args: argparse.Namespace, own_data: Apply) -> Config:
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config, args.settings, plugins=False)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif place := next((value for name in _OWN if (value := getattr(args, name, None))), None):
        cfg.work_dir = str(Path("work_dirs") / name_on_own_data(args.config, place))
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    own = own_data(cfg, args)
    if args.data_root is not None:
        if own is not cfg:
            raise ValueError(f"--data-root {args.data_root} has no use beside data of your own")
        set_data_root(cfg, args.data_root)
    return own


def _run(
    args: argparse.Namespace,
    configure: Callable[[], Config],
    *,
    kind: Kind,
    task: str,
    sections: str,
) -> None:
    began, trains = time.monotonic(), kind == "training"
    runners: list[Any] = []
    folders: list[Path] = []

    def log() -> Path | None:
        return folders[0] / f"log_rank{processes.rank()}.txt" if folders else None

    def saved() -> str:
        return run_hook(runners[0]).what_is_saved(runners[0]) if runners else "nothing is saved"

    for known in ("The draw is False", "torch.meshgrid"):  # a user cannot do anything about them
        warnings.filterwarnings("ignore", message=known)
    program = program_name("train.py" if trains else "test.py")
    with ending(program, log=log, saved=saved if trains else None), quiet() as output:
        cfg = configure()
        folder = Path(cfg.work_dir)
        require_data(cfg, ("train", "val") if trains else ("test",))
        if cfg.get("load_from"):
            resolve_source(cfg.load_from)  # official ones may be downloaded now
        import_plugins(cfg)
        _join(cfg)

        def check() -> bool:
            if not cfg.get("resume"):
                require_unused(folder)
            return has_run(folder)

        with (
            claimed(folder, kind, traces=_TRACES, begun=RECORD, check=check),
            contextlib.ExitStack() as stack,
        ):
            folders.append(folder)
            output.write_to(folder)
            with _building(folder / RECORD):
                replaced = not trains or has_run(folder)
                with no_init_weights() if replaced else contextlib.nullcontext():
                    runner = _build(cfg)
                runners.append(runner)
                stack.callback(run_hook(runner).after_run)
                output.take(runner.logger)
                hook = TerminalHook(output, recipe=_name(args.config, task))
                runner.register_hook(hook)
                runner.train() if trains else runner.test()
            processes.barrier()  # here: the other processes do not wait for the report
            if processes.is_main():
                _close(runner, hook, output, kind=kind, task=task, sections=sections, began=began)
        processes.leave()


def _join(cfg: Config) -> None:
    """Join the processes of a launcher; on CPUs by gloo, where mmengine would choose a GPU."""
    if cfg.launcher == "none":
        return
    if torch.cuda.is_available():
        init_dist(cfg.launcher, **cfg.get("env_cfg", {}).get("dist_cfg", {"backend": "nccl"}))
        return
    torch.distributed.init_process_group("gloo")
    if cfg.get("model_wrapper_cfg") is None:
        cfg.model_wrapper_cfg = dict(type="CPUDataParallel")


def _build(cfg: Config) -> Any:
    cfg.setdefault("runner_type", "Runner")
    runner = RUNNERS.build(cfg)
    run_hook(runner).claimed = True
    return runner


@contextlib.contextmanager
def _building(record: Path) -> Iterator[None]:
    """Report an argument that a constructor does not know as what it is: a wrong setting."""
    before = record.exists()
    try:
        yield
    except TypeError as error:
        if "unexpected keyword argument" in str(error) and (before or not record.exists()):
            raise ValueError(f"the config cannot be built: {one_line(error)}") from None
        raise


def _name(config: str | Path, task: str) -> str:
    """Return the name of a recipe, or the path of another config."""
    folder, path = recipe_folder(task), Path(config).resolve()
    inside = path.is_relative_to(folder)
    return path.relative_to(folder).with_suffix("").as_posix() if inside else str(config)


def _close(
    runner: Any,
    hook: TerminalHook,
    output: Output,
    *,
    kind: Kind,
    task: str,
    sections: str,
    began: float,
) -> None:
    page = write_report(runner, kind, sections)
    trains, scores = kind == "training", hook.score_lines()
    if was_over(runner):
        scores = score_lines(logged_scores(Path(runner.work_dir)))
    best, file = best_of(runner) if trains else ("", "")
    if best:  # the weights that are named are not those of the last evaluation
        scores = [f"best     {best} ({file})", *(f"last     {one}" for one in scores)]
    lines = closing_lines(
        scores="\n".join(scores),
        duration=time.monotonic() - began,
        weights=best_weights(runner) if trains else None,
        report=page,
        next_command=demo_command(runner, kind, task=task),
    )
    output.say(lines)

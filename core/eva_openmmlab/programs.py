"""Training and evaluation by a command line: mmengine's runner, with checks before it starts."""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.registry import RUNNERS

from eva_backbone import no_init_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.run_folders import folder_of_run
from eva_data.files import expand_home
from eva_openmmlab.config import (
    apply_request,
    load_config,
    require_data,
    set_data_root,
    set_epochs,
)
from eva_openmmlab.hooks import run_hook
from eva_openmmlab.report import RunReport
from eva_openmmlab.run_folder import RECORD, describe_saved, has_run, require_unused
from eva_openmmlab.terminal import LOG, TerminalHook, quiet, terminal
from eva_report.page import RESULTS
from eva_report.terminal import show
from eva_runs import processes
from eva_runs.commands import Result, program_name
from eva_runs.errors import exit_on_error, single_line_message, stderr_from_main_process
from eva_runs.output_folder import reserve_folder, watch
from eva_runs.recipes import name_on_own_data, recipe_name
from eva_runs.record import Kind
from eva_runs.request import RunRequest

Apply = Callable[[Config, argparse.Namespace], Config]
Change = Callable[[Config, argparse.Namespace], None]
_TRACES = (LOG, "*.py", "[0-9]" * 8 + "_" + "[0-9]" * 6, "log_rank*.txt")  # mmengine's, and ours


def run(args: argparse.Namespace, own_data: Apply, *, change: Change | None) -> int:
    """Train as a command line describes, or score weights; exit with a code of `eva_runs.errors`.

    `own_data` puts own data into a config and returns a new one, the same if there are none;
    `change` applies the project's own flags of an evaluation to the config, None trains.
    """
    began, trains = time.monotonic(), change is None
    kind: Kind = "training" if trains else "evaluation"
    folders: list[Path] = []
    watched: list[Callable[[], bool]] = []  # whether the run has begun

    def log() -> Path | None:
        return folders[0] / f"log_rank{processes.rank()}.txt" if folders else None

    def saved() -> str:
        return describe_saved(folders[0]) if folders else "nothing is saved"

    for message in ("The draw is False", "torch.meshgrid"):  # a user cannot do anything about them
        warnings.filterwarnings("ignore", message=message)
    program = program_name("train.py" if trains else "test.py")

    def begun() -> bool:
        return any(has_begun() for has_begun in watched)

    end = exit_on_error(program, log=log, begun=begun, saved=saved if trains else None)
    with end, quiet() as write_log:
        with stderr_from_main_process(), exit_on_error(program):
            cfg = _configure(args, own_data, change)
            folder = Path(cfg.work_dir)
            require_data(cfg, ("train", "val") if trains else ("test",))
            if cfg.get("load_from"):
                resolve_source(cfg.load_from)  # official ones may be downloaded now
        _join(cfg)
        if getattr(args, "epochs", None):
            line = set_epochs(cfg, RunRequest.from_options(args))
            if processes.is_main():
                show(line)
        watched.append(watch(folder / RECORD))
        settings, continues = cfg.to_dict(), partial(has_run, folder)
        with reserve_folder(
            folder, kind, traces=_TRACES, begun=RECORD, settings=settings, check=continues
        ):
            folders.append(folder)
            write_log(folder)
            runner = _run(cfg, trains=trains, recipe=recipe_name(args.task, args.config))
            processes.barrier()  # here: the other processes do not wait for the report
            if processes.is_main():
                report = RunReport(runner, kind, task=args.task)
                show(*report.closing(report.write(), duration=time.monotonic() - began))
        processes.destroy_group()
    return Result(folder / RESULTS)


def _configure(args: argparse.Namespace, own_data: Apply, change: Change | None) -> Config:
    cfg, request = load_config(args.config, args.settings), RunRequest()
    if change is None:
        request = RunRequest.from_options(args)
        apply_request(cfg, request)
    if request.epochs and "train_cfg.max_iters" in args.settings:
        raise ValueError("--epochs sets train_cfg.max_iters: leave one of them out")
    cfg.launcher = args.launcher
    cfg.setdefault("runner_type", "Runner")
    cfg.work_dir = str(_work_dir(cfg, args, trains=change is None))
    if change is None:
        cfg.load_from = args.load_from or cfg.get("load_from")
        if not cfg.resume:
            require_unused(Path(cfg.work_dir))
    else:
        cfg.load_from, cfg.resume, cfg.precision = args.weights, False, args.precision
        copy = Path(cfg.work_dir, Path(args.config).name)
        if copy.exists() and copy.samefile(args.config):
            raise ValueError(f"--work-dir {cfg.work_dir} holds {args.config}: name another folder")
    own = own_data(cfg, args)
    if args.data_root is not None:
        if own is not cfg:
            raise ValueError(f"--data-root {args.data_root} has no use beside data of your own")
        set_data_root(cfg, args.data_root)
    if change is not None:
        change(own, args)
    return own


def _work_dir(cfg: Config, args: argparse.Namespace, *, trains: bool) -> Path:
    """Choose the folder of a run: as named, else by data and recipe; of evaluations one below."""
    if args.work_dir is not None:
        return Path(args.work_dir)
    if args.of_run and not trains:  # which may have been moved since
        folder = folder_of_run(expand_home(args.weights))
    elif path := _first_path(args):
        folder = Path("work_dirs") / name_on_own_data(args.config, path)
    else:
        folder = Path(cfg.get("work_dir") or Path("work_dirs") / Path(args.config).stem)
    return folder if trains else folder / "test"


def _first_path(args: argparse.Namespace) -> Path | None:
    """Return the first path of own data on a command line; None without any."""
    if getattr(args, "data", None):
        return Path(args.data[0])
    flags = ("train_annotations", "train_images", "val_annotations", "val_images")
    return next((path for flag in flags if (path := getattr(args, flag, None))), None)


def _join(cfg: Config) -> None:
    """Join the processes of a launcher; on CPUs by gloo, where mmengine would choose a GPU."""
    if cfg.launcher == "none":
        return
    if torch.cuda.is_available():
        processes.end_with_launcher()
        init_dist(cfg.launcher, **cfg.get("env_cfg", {}).get("dist_cfg", {"backend": "nccl"}))
    else:
        processes.join_group("gloo")
    wrapper = {name: cfg[name] for name in ("find_unused_parameters",) if name in cfg}
    cfg.setdefault("model_wrapper_cfg", dict(type="EVADataParallel", **wrapper))


def _run(cfg: Config, *, trains: bool, recipe: str) -> Any:
    """Build the runner, and let it train or test."""
    folder = Path(cfg.work_dir)
    replaced = not trains or has_run(folder)  # the first weights
    try:
        with no_init_weights(replaced):
            runner = RUNNERS.build(cfg)
        shown = terminal()
        shown.addFilter(lambda record: bool(getattr(record, "shown", False)))
        runner.logger.addHandler(shown)  # mmengine's stands outside of Python's tree
        hook, lines = run_hook(runner), TerminalHook(recipe)
        runner.register_hook(lines)
        try:
            runner.train() if trains else runner.test()
        finally:
            hook.after_run(runner)
            lines.after_run(runner)
    except TypeError as error:  # of a setting that a constructor does not know
        if "unexpected keyword argument" not in str(error) or (folder / RECORD).exists():
            raise
        raise ValueError(f"the config cannot be built: {single_line_message(error)}") from None
    return runner

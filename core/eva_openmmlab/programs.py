"""Training and evaluation by a command line: mmengine's runner, with checks before it starts."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS

from eva_backbone import no_init_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_openmmlab.command_line import RunnerRequest
from eva_openmmlab.config import (
    apply_request,
    load_config,
    require_data,
    set_data_root,
    set_length,
)
from eva_openmmlab.data_parallel import join_processes
from eva_openmmlab.hooks import run_hook
from eva_openmmlab.report import RunReport
from eva_openmmlab.run_folder import RECORD, choose_folder, run_folder
from eva_openmmlab.terminal import LOG, TerminalHook, quiet, terminal
from eva_report.page import RESULTS
from eva_report.terminal import show
from eva_runs import processes
from eva_runs.commands import Result, program_name
from eva_runs.errors import exit_on_error, single_line_message, stderr_from_main_process
from eva_runs.output_folder import reserve_folder, watch
from eva_runs.recipes import recipe_name
from eva_runs.record import Kind
from eva_runs.request import require_counts

_TRACES = (LOG, "*.py", "[0-9]" * 8 + "_" + "[0-9]" * 6, "log_rank*.txt")  # mmengine's, and ours


class Run:
    """A training or an evaluation by a command line: its config is resolved, built and run.

    Args:
        request: What is asked for.
        apply_data: Function that puts own data into a copy of a config.
        change: Function that applies the project's own flags to the config; None for no such.

    Attributes:
        folder: Work folder, once it is reserved for this run.
    """

    def __init__(
        self,
        request: RunnerRequest,
        apply_data: Callable[[Config, Any], Config],
        change: Callable[[Config, argparse.Namespace], None] | None,
    ) -> None:
        self.request, self.apply_data, self.change = request, apply_data, change
        self.trains = not request.evaluates
        self.folder: Path | None = None
        self._is_record_new: Callable[[], bool] = lambda: False

    def start(self) -> int:
        """Train or score; exit with a code of `eva_runs.errors`."""
        began, program = time.monotonic(), program_name("train.py" if self.trains else "test.py")
        end = exit_on_error(
            program,
            log=self._log,
            begun=lambda: self._is_record_new(),
            saved=self._describe_saved if self.trains else None,
        )
        with end, quiet() as write_log:
            with stderr_from_main_process(), exit_on_error(program):
                cfg = self._resolve()
            folder = Path(cfg.work_dir)
            kind: Kind = "training" if self.trains else "evaluation"
            join_processes(cfg)
            line = set_length(cfg, self.request) if self.trains else ""
            if line and processes.is_main():
                show(line)
            self._is_record_new = watch(folder / RECORD)
            reserved = reserve_folder(
                folder,
                kind,
                traces=_TRACES,
                begun=RECORD,
                settings=cfg.to_dict(),
                check=lambda: run_folder(folder).continues(resume=cfg.resume),
            )
            with reserved:
                self.folder = folder
                write_log(folder)
                runner = self._run(cfg)
                processes.barrier()  # here: the other processes do not wait for the report
                if processes.is_main():
                    RunReport(runner, kind, task=self.request.task).close(began=began)
            processes.destroy_group()
        return Result(folder / RESULTS)

    def _log(self) -> Path | None:
        return self.folder and self.folder / f"log_rank{processes.rank()}.txt"

    def _describe_saved(self) -> str:
        return run_folder(self.folder).describe_saved() if self.folder else "nothing is saved"

    def _resolve(self) -> Config:
        """Read the config, apply what the command line asks, and look for what it names."""
        request, settings = self.request, self.request.settings
        cfg = load_config(request.config, settings)
        if request.epochs and "train_cfg.max_iters" in settings:
            raise ValueError("--epochs sets train_cfg.max_iters: leave one of them out")
        cfg.launcher = request.launcher
        cfg.setdefault("runner_type", "Runner")
        cfg.work_dir = str(choose_folder(cfg, request))
        if self.trains:
            require_counts(cfg, "train_cfg", ("max_iters", "val_interval"))
            require_counts(cfg, "optim_wrapper", ("accumulative_counts",))
            stated = {key: cfg[key] for key in ("load_from",) if key in settings}
            apply_request(cfg, request)
            cfg.update(stated)  # before the weights of --backbone
            if cfg.optim_wrapper.get("type") == "AmpOptimWrapper" and get_device() == "cpu":
                raise ValueError(
                    "mixed precision (--amp, optim_wrapper.type=AmpOptimWrapper) needs cuda: on a "
                    "CPU leave out --amp and set optim_wrapper.type=OptimWrapper"
                )
            cfg.load_from = request.weights or cfg.get("load_from")
            run_folder(cfg.work_dir).continues(resume=cfg.resume)
        else:
            cfg.load_from, cfg.resume, cfg.precision = request.weights, False, request.precision
            copy = Path(cfg.work_dir, request.config.name)
            if copy.exists() and copy.samefile(request.config):
                raise ValueError(f"--output {cfg.work_dir} holds {request.config}: name another")
        if request.data_root is not None and request.data is not None:
            raise ValueError(f"--data-root {request.data_root} has no use beside data of your own")
        if getattr(request.data, "bands", None) is None:
            request.require_rgb()
        if request.data_root is not None:
            set_data_root(cfg, request.data_root)
        if request.data is not None:
            cfg = self.apply_data(cfg, request.data)
        if self.change is not None:
            self.change(cfg, request.flags)
        require_data(cfg, ("train", "val") if self.trains else ("test",))
        if cfg.get("load_from"):
            resolve_source(cfg.load_from)  # official ones may be downloaded now
        return cfg

    def _run(self, cfg: Config) -> Any:
        """Build the runner, and let it train or test."""
        folder = Path(cfg.work_dir)
        replaced = not self.trains or run_folder(folder).is_used()  # the first weights
        try:
            with no_init_weights(replaced):
                kind: Any = RUNNERS.get(cfg.runner_type)
                # the config of a run stays until this one begins, and is no longer refused
                late: Any = type(kind.__name__, (kind,), {"dump_config": lambda self: None})
                runner = late.from_cfg(cfg)
            shown = terminal()
            shown.addFilter(lambda record: bool(getattr(record, "shown", False)))
            runner.logger.addHandler(shown)  # mmengine's stands outside of Python's tree
            hook = run_hook(runner)
            lines = TerminalHook(recipe_name(self.request.task, self.request.config))
            runner.register_hook(lines)
            try:
                runner.train() if self.trains else runner.test()
            finally:
                hook.after_run(runner)
                lines.after_run(runner)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # of a pooling to one pixel
                raise
            raise ValueError(
                "batch norm of the head needs two images in a forward pass: raise --batch or "
                "train_dataloader.batch_size, or take fewer processes"
            ) from error
        except TypeError as error:  # of a setting that a constructor does not know
            if "unexpected keyword argument" not in str(error) or (folder / RECORD).exists():
                raise
            raise ValueError(f"the config cannot be built: {single_line_message(error)}") from None
        return runner

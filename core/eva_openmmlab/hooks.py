"""The hooks of a run: it stops, continues, saves and refuses as every trainer here does.

docs/reliability.md has the promises. Recipes name both hooks, so that mmsegmentation's and
mmdetection's own tools keep them too.
"""

import contextlib
import re
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from eva_backbone.checkpoints.run_folders import ADAPTER, BEST, LORA
from eva_openmmlab.checkpoint_hook import EVACheckpointHook, check_checkpoint
from eva_openmmlab.data_parallel import broadcast_buffers, unwrap
from eva_openmmlab.images import first_samples
from eva_openmmlab.loop import own_loop, trains
from eva_openmmlab.optimizer import IterationLR
from eva_openmmlab.run_folder import RECORD, RUN, run_folder, write_record
from eva_openmmlab.step_watch import StepWatch
from eva_openmmlab.weights import CONTINUED, load_start
from eva_report.first_batch import watch_first_batch
from eva_report.page import NAME, is_current
from eva_report.terminal import SHOWN
from eva_runs import processes
from eva_runs.adapters import Adapters, complete
from eva_runs.checkpoint_store import find_newest
from eva_runs.data_order import guard_workers
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal
from eva_runs.output_folder import require_room_for_checkpoint
from eva_runs.precision import lower_backbone, resolve
from eva_runs.run_folder import MESSAGES
from eva_runs.run_logs import ANOTHER

PREDICTIONS = "inference/coco_instances_results"  # and .bbox.json or .segm.json
_HEAD = re.compile(r"decode_head|roi_head\.(bbox|mask)_head(\.\d+)?")


@HOOKS.register_module()
class RunHook(Hook):
    """Keep the promises of a run on mmengine's runner.

    `load_from` may name an official file. `env_cfg.matmul_precision` ("highest", "high") is the
    precision of float32 matrix products on a GPU; "high" is TF32, which the official runs used.

    Attributes:
        resumed: Checkpoint that this start continues from; None for none.
    """

    priority = 80  # after the schedules' step, before the checkpoint

    def __init__(self) -> None:
        self.resumed: Path | None = None
        self._stop = StopSignal()
        self._watch = StepWatch(self._stop)
        self._stack = contextlib.ExitStack()
        self._saved = 0  # iteration of the newest checkpoint
        self._log_sizes: dict[str, int] | None = None  # as it notes them

    def before_run(self, runner: Any) -> None:
        """Listen to signals, and find the checkpoint to continue from."""
        precision = runner.cfg.get("env_cfg", {}).get("matmul_precision", "highest")
        torch.set_float32_matmul_precision(precision)
        continues = bool(runner.cfg.get("resume"))
        # what a run with checkpoints has logged below the folder stays when another begins there
        if continues or not any(Path(runner.work_dir).glob("*.pth")):
            self._log_sizes = {}
        if own_loop(runner):
            self._stack.enter_context(self._stop.listen())
            if runner.val_loop is not None:
                guard_workers(runner.val_dataloader)
        if trains(runner):
            _prepare_schedules(runner)
            _prepare_adapters(runner)
        if trains(runner) and continues:
            self._find_checkpoint(runner)
        runner.load_or_resume = partial(self._load, runner)  # mmengine knows the newest file alone

    def _find_checkpoint(self, runner: Any) -> None:
        checkpoints = run_folder(runner.work_dir).checkpoints
        self.resumed = processes.run_on_main_rank(lambda: find_newest(checkpoints))
        if self.resumed is None:
            runner._resume = False  # else `EMAHook` would take the average of other weights
            message = MESSAGES.nothing_to_resume(Path(runner.work_dir))
            runner.logger.info(message, extra=SHOWN)

    def _load(self, runner: Any) -> None:
        """Load the checkpoint to continue from, or the first weights."""
        first = runner.cfg.get("load_from")
        if self.resumed is not None:
            runner.resume(f"{CONTINUED}{self.resumed}")
        elif first and _adapters(runner) is None:  # which have loaded them before the optimizer
            runner.load_checkpoint(first)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse what does not fit; mmengine would load what fits and log the rest."""
        model = unwrap(runner.model)
        if self.resumed is not None:
            try:
                self._continue_from(runner, model, checkpoint)
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"{self.resumed} cannot be continued from: {reason}") from None
            return
        inside = getattr(model, "module", model)  # test-time augmentation wraps it
        report = load_start(inside, runner.cfg.load_from, complete=not trains(runner))
        if report.from_scratch:
            runner.logger.warning(report.from_scratch, extra=SHOWN)
        loaded = model.state_dict()
        checkpoint.clear()  # mmengine removes one "module." and loads the rest
        checkpoint["state_dict"] = {f"module.{name}": value for name, value in loaded.items()}

    def _continue_from(self, runner: Any, model: nn.Module, content: dict[str, Any]) -> None:
        complete(content, "state_dict", model, _adapters(runner))
        check_checkpoint(content, model, runner)
        done, loop = content["meta"]["iter"], own_loop(runner)
        self._saved, self._log_sizes = done, None
        if loop:
            self._log_sizes = content[RUN].get("logs")
            loop.continue_at(done, content[RUN])

    def before_train(self, runner: Any) -> None:
        """Watch losses and gradients, of a head that fits the data."""
        model = unwrap(runner.model)
        metainfo = getattr(runner.train_dataloader.dataset, "metainfo", None) or {}
        classes = len(metainfo.get("classes") or ())
        for name, part in model.named_modules():
            count = getattr(part, "num_classes", classes)
            if classes and _HEAD.fullmatch(name) and count != classes:
                raise ValueError(f"num_classes of {name} is {count}, of the data {classes}")
        require_room_for_checkpoint(Path(runner.work_dir), model)
        self._watch.attach(model, runner.optim_wrapper.optimizer)
        if self.resumed is None and is_main_process():
            draw = partial(first_samples, model.data_preprocessor, metainfo)
            watch_first_batch(model, Path(runner.work_dir), draw)
        processes.run_on_main_rank(lambda: self._cut_logs(runner))
        self._begin(runner)

    def _cut_logs(self, runner: Any) -> None:
        """Cut off what this start does again, also the last evaluation, if the page lacks it."""
        logs = run_folder(runner.work_dir).logs
        if self._saved == runner.max_iters and not is_current(logs.folder / NAME):
            logs.forget_evaluation()
        logs.cut(self._saved, self._log_sizes)

    def before_test(self, runner: Any) -> None:
        """Let metrics leave their predictions for the report, and the model compute as asked."""
        _keep_predictions(runner.test_evaluator, Path(runner.work_dir))
        precision = runner.cfg.get("precision")
        if precision:
            model, device = unwrap(runner.model), torch.device(get_device())
            runner.cfg.precision = precision = resolve(precision, device)
            lower_backbone(getattr(model, "module", model).backbone, precision, device)
        self._begin(runner)

    def before_val(self, runner: Any) -> None:
        """Score what a checkpoint holds: the main process's statistics of batch norm."""
        if trains(runner) and runner.iter:
            self._save(runner, runner.iter)
        _keep_predictions(runner.val_evaluator, Path(runner.work_dir))
        broadcast_buffers(runner.model)

    def _begin(self, runner: Any) -> None:
        folder = Path(runner.work_dir)
        if is_main_process() and (trains(runner) or not (folder / RECORD).exists()):
            write_record(folder, Path(runner.cfg.filename or f"{runner.timestamp}.py").name)
        Runner.dump_config(runner)  # which our programs leave until here

    def after_run(self, runner: Any = None) -> None:
        """Release the signals."""
        self._stack.close()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note the images of a batch."""
        self._watch.note_batch(batch_idx, data_batch)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop after a step of the optimizer, if any process was asked to."""
        if not runner.optim_wrapper.should_update():
            return
        if self._watch.finish_step(runner.optim_wrapper) and batch_idx + 1 < runner.max_iters:
            self._save(runner, batch_idx + 1)
            self._exit(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add the place in the data to a checkpoint; with adapters take out what is frozen."""
        adapters = _adapters(runner)
        if adapters is not None:
            # the best weights come without the optimizer
            file = ADAPTER if "optimizer" in checkpoint else f"{BEST}/{ADAPTER}"
            adapters.write(checkpoint["state_dict"], Path(runner.work_dir, file).parent)
            for key in {"state_dict", "ema_state_dict"} & checkpoint.keys():  # of EMAHook
                checkpoint[key] = adapters.cut(checkpoint[key])
            checkpoint[LORA] = adapters.identity
        if "optimizer" not in checkpoint:  # the best weights
            return
        loop = own_loop(runner)
        if loop:
            done = checkpoint["meta"]["iter"]
            if done != self._saved:  # once more after the evaluation, with the best score
                self._log_sizes = run_folder(runner.work_dir).logs.sizes()
            position = loop.position(done)
            checkpoint[RUN] = position | {"logs": self._log_sizes}
            checkpoint["meta"]["seed"] = position["seed"]
        self._saved = checkpoint["meta"]["iter"]

    def after_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Leave an evaluation, which a run that continues begins with, on request."""
        if self._stop.requested and trains(runner):
            self._exit(runner, together=False)

    def _save(self, runner: Any, done: int) -> None:
        """Save, unless it is done."""
        if done != self._saved:
            hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
            hook._save_checkpoint_with_step(runner, done, {"epoch": runner.epoch, "iter": done})

    def _exit(self, runner: Any, *, together: bool = True) -> NoReturn:
        name = self._stop.received or ANOTHER
        # once it is noted, what a launcher sends to those that are left has no effect
        self._stop.received = name
        for hook in runner.hooks:
            if isinstance(hook, EVACheckpointHook):
                hook.store.writer.wait()
        if together:
            processes.barrier()  # the first process that ends takes the others along
        saved = run_folder(runner.work_dir).describe_saved()
        runner.logger.info(MESSAGES.stopped(name, saved), extra=SHOWN)
        raise SystemExit(EXIT_RUN_AGAIN)


def run_hook(runner: Any) -> RunHook:
    """Return the `RunHook` of a runner, which it is given if its config has none."""
    if not any(isinstance(hook, RunHook) for hook in runner.hooks):
        runner.register_hook(RunHook())
    return next(hook for hook in runner.hooks if isinstance(hook, RunHook))


def _adapters(runner: Any) -> Adapters | None:
    loop = own_loop(runner)
    return loop.adapters if loop else None


def _prepare_schedules(runner: Any) -> None:
    """Tell schedules how many iterations a step of the optimizer has."""
    for schedule in runner.param_schedulers or ():
        if isinstance(schedule, IterationLR):
            schedule.accumulate = runner.cfg.optim_wrapper.get("accumulative_counts", 1)


def _prepare_adapters(runner: Any) -> None:
    if _adapters(runner) is not None:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.strict_load = False  # a checkpoint lacks what is frozen
    elif rank := (runner.cfg.get("lora") or {}).get("rank"):
        raise ValueError(f"lora.rank={rank} needs train_cfg.type=EVATrainLoop")


def _keep_predictions(evaluator: Any, folder: Path) -> None:
    """Let mmdetection's metrics of COCO's kind write their predictions below a folder."""
    for metric in evaluator.metrics:
        if getattr(metric, "outfile_prefix", "") is None:
            metric.outfile_prefix = str(folder / PREDICTIONS)

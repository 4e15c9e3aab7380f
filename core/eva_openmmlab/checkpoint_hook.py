"""The hook that saves a run, whole files written in the background, and what is read of them."""

import contextlib
import math
import operator
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from eva_backbone.checkpoints.run_folders import LATEST
from eva_data.saving import write_text
from eva_openmmlab.loop import trains
from eva_openmmlab.run_folder import run_folder
from eva_runs import processes
from eva_runs.checkpoint_store import CheckpointStore
from eva_runs.fits import check_model, check_optimizer, take_settings

BEST_PREDICTIONS = "best_results.bbox.json"  # beside those of the last evaluation


class CompleteFiles(LocalBackend):
    """mmengine's local files, which a store writes whole or not at all, in the background.

    Attributes:
        store: The store.
        outdated: Files that are to be removed once others are written.
    """

    store: CheckpointStore
    outdated: list[Path]

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Begin to write a file."""
        self.store.save(Path(filepath), lambda stream: stream.write(obj))

    def remove(self, filepath: str | Path) -> None:
        """Note a file for removal."""
        self.outdated.append(Path(filepath))


@HOOKS.register_module()
class EVACheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook` (arguments as there), which never loses what it had before.

    A file takes its name when it is complete, and an older one, or the best so far, goes last.
    Training goes on meanwhile; the next save, and an evaluation, whose workers are forked, wait. Of
    equal scores that of the least training loss since the last evaluation is best, then the later.
    The predictions of the best weights stay, where a metric writes them.
    """

    rule_map: ClassVar[dict[str, Any]] = {"greater": operator.ge, "less": operator.le}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.store, self._outdated = CheckpointStore(), list[Path]()
        # mmengine makes backends as it needs them, of a class that is registered
        name, own = f"files_{id(self)}", {"store": self.store, "outdated": self._outdated}
        register_backend(name, type(name, (CompleteFiles,), own), force=True)
        super().__init__(*args, backend_args={"backend": name}, **kwargs)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Save where it is due, and raise the error of a save that has failed."""
        self.store.writer.check()
        super().after_train_iter(runner, *args, **kwargs)

    def before_val(self, runner: Any) -> None:
        """Wait for what is being written."""
        self.store.writer.wait()

    def after_train(self, runner: Any) -> None:
        """Wait for what is being written."""
        super().after_train(runner)
        self.store.writer.wait()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float]) -> None:
        """Save the best weights, and note that this evaluation is finished."""
        super().after_val_epoch(runner, metrics)
        if is_main_process() and trains(runner):
            logs, done = run_folder(runner.work_dir).logs, runner.iter
            sizes = logs.sizes()
            # behind the checkpoint that has the best score
            self.store.writer.submit(lambda: logs.note_evaluation(done, sizes))

    @contextlib.contextmanager
    def _behind(self) -> Iterator[None]:
        """Write the block's files in the background, and remove others behind them."""
        self.store.writer.wait()
        yield
        best = Path(getattr(self, "best_ckpt_path", None) or "")  # perhaps evaluated once more
        outdated = [file for file in self._outdated if file != best]
        self._outdated.clear()

        def remove() -> None:
            for file in outdated:
                file.unlink(missing_ok=True)

        self.store.writer.submit(remove)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        note = Path(runner.work_dir) / LATEST
        with self._behind():
            before = note.read_text() if is_main_process() and note.exists() else ""
            super()._save_checkpoint_with_step(runner, step, meta)
            if is_main_process():  # mmengine has noted what is not written yet
                content = note.read_text()
                write_text(note, before) if before else note.unlink()
                self.store.writer.submit(lambda: write_text(note, content))

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, float]) -> None:
        # mmdetection's metric gives none where nothing is detected: the best weights stay
        if not {*(self.key_indicators or ())} <= {*metrics, "auto"}:
            return
        hub, key = runner.message_hub, (self.key_indicators or [""])[0]
        loss, before = processes.run_on_main_rank(partial(_mean_loss, runner)), _best_of(hub)
        tied = key in metrics and metrics[key] == hub.get_info("best_score", math.nan)
        if tied and loss > before["best_loss"]:
            return
        hub.update_info("best_loss", loss)  # which the checkpoint of the best notes, too
        with self._behind():
            super()._save_best_checkpoint(runner, metrics)
        if _best_of(hub)["best_ckpt"] == before["best_ckpt"]:
            hub.update_info("best_loss", before["best_loss"])
        elif is_main_process():
            for metric in runner.val_evaluator.metrics:
                file = Path(f"{getattr(metric, 'outfile_prefix', None)}.bbox.json")
                if file.is_file():
                    shutil.copy(file, file.with_name(BEST_PREDICTIONS))


def _best_of(hub: MessageHub) -> dict[str, Any]:
    """Return what is noted of the best weights."""
    others = {"best_ckpt": None, "best_loss": math.inf}
    return {name: hub.get_info(name, other) for name, other in others.items()}


def _mean_loss(runner: Any) -> float:
    """Average the training loss since the evaluation before."""
    losses, loop = runner.message_hub.log_scalars.get("train/loss"), runner.train_loop
    if losses is None:
        return math.inf
    is_by_epochs = isinstance(loop, EpochBasedTrainLoop)
    return float(losses.mean(loop.val_interval * (len(loop.dataloader) if is_by_epochs else 1)))


def check_checkpoint(content: dict[str, Any], model: nn.Module, runner: Any) -> None:
    """Refuse the content of a checkpoint that does not fit the run, and prepare it for mmengine.

    Raises:
        ValueError: If weights, optimizer, schedules or iteration are not those of the run.
        LookupError, TypeError, AttributeError: If a part of it is missing or of another kind.
    """
    check_model(content["state_dict"], model)
    check_optimizer(content["optimizer"], runner.optim_wrapper.optimizer)
    schedulers, states = runner.param_schedulers or [], content["param_schedulers"]
    if [sorted(state) for state in states] != [sorted(s.state_dict()) for s in schedulers]:
        raise ValueError("it has other schedules than the config")
    if (runner.auto_scale_lr or {}).get("enable"):
        # for the batch of this start, while an iteration keeps its images
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.base_values = state["base_values"]
    else:
        take_settings(content["optimizer"], runner.optim_wrapper.optimizer)
    meta, last = content["meta"], runner.train_loop.max_iters
    counts = [meta[name] for name in ("iter", "epoch", "seed")]
    are_valid = all(type(value) is int and value >= 0 for value in counts)
    if not are_valid:
        raise ValueError(f"iteration, epoch, seed are {counts}")
    if meta["iter"] > last:
        raise ValueError(
            f"it is after iteration {meta['iter']}, and train_cfg.max_iters={last}: raise it, or "
            "choose another work_dir"
        )
    meta.pop("config", None)  # mmengine would run it
    _keep_to_folder(content["message_hub"]["runtime_info"], runner.work_dir)


def _keep_to_folder(info: dict[str, Any], folder: str) -> None:
    """Let the notes of `CheckpointHook` name files of the run's folder, which may have moved."""
    for name in [name for name in info if name.startswith("best_ckpt")]:
        file = Path(folder, Path(str(info[name])).name)
        info[name] = str(file) if file.name.startswith("best_") else None
    info["keep_ckpt_ids"] = [n for n in info.get("keep_ckpt_ids", ()) if type(n) is int]

"""Checkpoints that are complete or absent, whatever ends the process."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop

from eva_data.files import write_text
from eva_openmmlab.config.runs import LATEST
from eva_openmmlab.training.checkpoint_files import Evaluation, write_evaluation


@HOOKS.register_module()
class EVACheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook` (same arguments), which never loses what it had before.

    A file takes its name when it is complete, `last_checkpoint` names it then, and an older one, or
    the best so far, goes last. mmengine removes first. With the runner's evaluations noted in
    `last_evaluation.json`, a checkpoint need not be written a second time after each.

    Attributes:
        saved_iteration: Iteration of the newest checkpoint that this process wrote.
    """

    saved_iteration: int | None = None
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    def before_train(self, runner: Any) -> None:
        """Prepare; of the files that a checkpoint names, only those in this folder count.

        Args:
            runner: The runner.
        """
        hub = runner.message_hub
        place = self.folder(runner.work_dir)
        for name, value in list(hub.runtime_info.items()):
            if name.startswith("best_ckpt"):
                file = place / Path(str(value)).name
                hub.update_info(name, str(file) if file.name.startswith("best_") else None)
            elif name == "keep_ckpt_ids":
                kept = value if isinstance(value, list) else []
                hub.update_info(name, [step for step in kept if type(step) is int])
        super().before_train(runner)

    def folder(self, work_dir: str) -> Path:
        """Return the folder of the checkpoints.

        Args:
            work_dir: Work folder of the run; `out_dir` has a folder of its name.
        """
        if self.out_dir in (None, work_dir):
            return Path(work_dir)
        name = Path(work_dir).name
        out = Path(str(self.out_dir))
        return out if out.name == name else out / name

    def save(self, runner: Any, iteration: int) -> None:
        """Save now, unless it has been done.

        Args:
            runner: The runner, between two iterations.
            iteration: Iterations that are done.
        """
        if self.saved_iteration != iteration:
            meta = {"epoch": runner.epoch, "iter": iteration}
            self._save_checkpoint_with_step(runner, iteration, meta)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float]) -> None:
        """Save the best weights, and note that this evaluation is finished.

        Args:
            runner: The runner.
            metrics: Scores.
        """
        super().after_val_epoch(runner, metrics)
        if is_main_process() and isinstance(runner._train_loop, BaseLoop):
            info = runner.message_hub.runtime_info
            best = {
                name: Path(value).name if name.startswith("best_ckpt") else float(value)
                for name, value in info.items()
                if name.startswith(("best_ckpt", "best_score")) and value is not None
            }
            note = Evaluation(iteration=runner.iter, best=best)
            write_evaluation(Path(runner.work_dir), note)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            # with those that are still there: a continued run removes what a kill has left
            runner.message_hub.update_info("keep_ckpt_ids", [*outdated, *self.keep_ckpt_ids])
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_text(Path(runner.work_dir) / LATEST, self.last_ckpt)
            for old in outdated:
                name = self.filename_tmpl.format(old)
                self._remove(self.file_backend.join_path(self.out_dir, name))
        if outdated:
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        self.saved_iteration = step

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, float]) -> None:
        """Save the weights if they are the best so far, and remove the former best then."""
        if not self.save_best:
            return
        missing = [name for name in self.key_indicators if name not in (*metrics, "auto")]
        if missing or not metrics:  # mmdetection's metric gives none where nothing is detected
            what = ", ".join(missing) or "a score"
            runner.logger.warning(
                "the evaluation at iteration %d has not given %s: the best weights stay",
                runner.iter,
                what,
            )
            return
        several = len(self.key_indicators) > 1
        before = dict(self.best_ckpt_path_dict) if several else {"": self.best_ckpt_path}
        newest, self.last_ckpt = self.last_ckpt, None
        if several:
            self.best_ckpt_path_dict = dict.fromkeys(before)
        else:
            self.best_ckpt_path = None
        super()._save_best_checkpoint(runner, metrics)
        self.last_ckpt = newest
        after = dict(self.best_ckpt_path_dict) if several else {"": self.best_ckpt_path}
        for name, former in before.items():
            if after.get(name) is None:
                after[name] = former
            elif former not in (None, after[name]) and is_main_process():
                self._remove(former)
        if several:
            self.best_ckpt_path_dict = after
        else:
            self.best_ckpt_path = after[""]

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)

"""The output folder of a training: its checkpoints, its config, and what was logged in it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.run_folders import adapter_of, folder_of_run
from eva_data.files import expand_home, is_there
from eva_report.page import NAME, is_current
from eva_runs.run_folder import RunFolder
from eva_runs.run_logs import read_log

METRICS, FINAL, RESULTS = "metrics.json", "model_final.pth", "results.json"
SAVED = "config.yaml"  # the config that a run leaves with its weights


class TrainingFolder(RunFolder):
    """The output folder of a training in detectron2, which counts iterations from 0."""

    def __init__(self, path: Path) -> None:
        patterns = {"checkpoints": "model_*.pth", "foreign": "[ei]*_*.pth", "logs": METRICS}
        super().__init__(path, **patterns, order=os.path.getmtime, first=0)

    @property
    def weights(self) -> Path:
        """The file of the weights at the end of the training."""
        return adapter_of(self.path) or self.path / FINAL

    def is_used(self) -> bool:
        """Return whether the folder holds a run, also one that has logged and saved nothing."""
        metrics = self.path / METRICS
        return super().is_used() or (metrics.is_file() and metrics.stat().st_size > 0)

    def is_finished(self, max_iter: int) -> bool:
        """Return whether the run has trained to its end and was scored, and the page says so."""
        newest, results = self.newest, self.path / RESULTS
        trained = newest is not None and newest.name == FINAL and results.is_file()
        return trained and self.logs.is_evaluated(max_iter) and is_current(self.path / NAME)

    def cut_logs(self, done: int, saved: Mapping[str, Any], *, last: int) -> None:
        """Cut off what a start after a checkpoint does again, of a finished run its evaluation."""
        if done == last:  # see `is_finished`
            self.logs.forget_evaluation()
        self.logs.cut(done, saved.get("logs"))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read detectron2's `metrics.json` (one JSON object a line), in order of iterations."""
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in read_log(folder / METRICS, "iteration"):
        by_iteration.setdefault(line["iteration"], {}).update(line)
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def config_of_run(weights: str | os.PathLike[str]) -> Path | None:
    """Find the config that a training has left with its weights."""
    path = expand_home(weights)
    file = folder_of_run(path) / SAVED if is_there(str(path)) else None
    return file if file and file.is_file() else None

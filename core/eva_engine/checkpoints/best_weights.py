"""The weights with the best evaluation so far, kept beside the checkpoints."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.files import make_folder, remove_unfinished, write_text
from eva_engine import distributed
from eva_engine.checkpoints.files import save_weights
from eva_engine.checkpoints.state_files import Failures
from eva_engine.steps.deepspeed_engine import TrainingEngine

logger = logging.getLogger(__name__)

FOLDER, RECORD = "best", "best.json"


def check_metric(metric: str, results: Sequence[str]) -> None:
    """Refuse a metric that is not a result of the evaluation.

    Args:
        metric: Name of a result, or "".
        results: Names of all results; empty without validation data.

    Raises:
        ValueError: Naming both.
    """
    if metric and metric not in results:
        there_are = ", ".join(results) if results else "none: there is no validation data"
        raise ValueError(
            f"best_metric={metric} is not a result of the evaluation (there are {there_are}); "
            "choose one of them, or nothing ('')"
        )


class BestWeights:
    """Keeps the best weights, and the best moving average if there is one, in the folder `best`.

    Each has an evaluation and a best step of its own. `best.json` has step and results of both; a
    file that it does not name is not complete.

    Args:
        output: Folder of the run.
        metric: Name of the result that decides; of `loss` the smallest is best, else the largest.
        begins: Whether the run begins; what an earlier one left does not count then.
        config: Config of the run, for `eva_engine.checkpoints.files.read_config`.
    """

    def __init__(
        self, output: Path, *, metric: str, begins: bool, config: Mapping[str, Any]
    ) -> None:
        self.folder, self.metric, self.config = output / FOLDER, metric, config
        if distributed.rank() == 0:
            remove_unfinished(self.folder)  # of a save that a kill cut short
            if begins:
                (self.folder / RECORD).unlink(missing_ok=True)

    def consider(
        self, engine: TrainingEngine, name: str, *, step: int, results: Mapping[str, float]
    ) -> None:
        """Keep the engine's present weights if they are better; called on all processes.

        Args:
            engine: The engine that trains, with the weights that were evaluated.
            name: File for them, `WEIGHTS` or `EMA_WEIGHTS`.
            step: Step that was evaluated, from 0.
            results: Results of the evaluation.

        Raises:
            OSError: On all processes, if the disk is full, for example.
        """
        main = distributed.rank() == 0
        kept = self._record() if main else {}
        better = main and self._is_better(results[self.metric], kept.get(name))
        if not distributed.gather(better)[0]:
            return
        failures, file = Failures(), self.folder / name
        if main:
            with failures.noted(file):
                make_folder(self.folder)
                self._write({key: value for key, value in kept.items() if key != name})
        state = engine.full_precision_state()
        if main:
            with failures.noted(file):
                save_weights(state, file, self.config)
                self._write(kept | {name: {"step": step, "results": dict(results)}})
        failures.raise_together()
        logger.info("best %s so far: %.5g, kept in %s", self.metric, results[self.metric], file)

    def _is_better(self, value: float, kept: Mapping[str, Any] | None) -> bool:
        if not math.isfinite(value):
            return False
        if kept is None or self.metric not in kept["results"]:
            return True
        best: float = kept["results"][self.metric]
        return value < best if self.metric == "loss" else value > best

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.folder / RECORD).read_text("utf-8"))
            return {name: kept for name, kept in record.items() if kept["results"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%s): the next weights count as the best so far",
                           self.folder / RECORD, error)  # fmt: skip
            return {}

    def _write(self, record: Mapping[str, Any]) -> None:
        write_text(self.folder / RECORD, json.dumps(record, indent=2))

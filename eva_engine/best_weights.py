"""The weights with the best evaluation so far, kept beside the checkpoints."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from eva_engine import distributed
from eva_engine.deepspeed_engine import TrainingEngine
from eva_engine.moving_average import MovingAverage
from eva_engine.run_checkpoint import EMA_WEIGHTS, WEIGHTS, save_weights, write_whole

logger = logging.getLogger(__name__)

FOLDER, RECORD = "best", "best.json"


def check_metric(metric: str, results: Sequence[str]) -> None:
    """Refuse a metric that no evaluation gives.

    Args:
        metric: Name of a result, or "".
        results: Names of all; none without validation data.

    Raises:
        ValueError: Naming both.
    """
    if metric and metric not in results:
        there_are = ", ".join(results) if results else "none, for there are no validation data"
        raise ValueError(
            f"best_metric={metric} is no result of the evaluation (there are {there_are}); choose "
            "one of them, or nothing ('')"
        )


class BestWeights:
    """Keeps weights, and the moving average if there is one, in the folder `best` of a run.

    `best.json` tells step and results; it is written last, so a folder without it is not whole.

    Args:
        output: Folder of the run.
        metric: Name of the result that decides; of `loss` the smallest is best, else the largest.
        anew: Whether the run begins, and what an earlier one left counts for nothing.
    """

    def __init__(self, output: Path, *, metric: str, anew: bool) -> None:
        self.folder, self.metric = output / FOLDER, metric
        if anew and distributed.rank() == 0:
            (self.folder / RECORD).unlink(missing_ok=True)

    def consider(
        self,
        engine: TrainingEngine,
        average: MovingAverage | None,
        *,
        step: int,
        results: Mapping[str, float],
    ) -> None:
        """Keep the present weights if they are better; called on all processes.

        Args:
            engine: The engine that trains.
            average: Its moving average.
            step: That was evaluated, from 0.
            results: Of the evaluation.
        """
        main = distributed.rank() == 0
        if not distributed.gather(main and self._is_better(results[self.metric]))[0]:
            return
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / RECORD).unlink(missing_ok=True)
        self._replace(engine, WEIGHTS)
        if average is not None:
            with average.applied():
                self._replace(engine, EMA_WEIGHTS)
        if main:
            record = {"metric": self.metric, "step": step, "results": dict(results)}
            write_whole(self.folder / RECORD, json.dumps(record, indent=2))
            logger.info(
                "best %s so far: %.5g, kept in %s", self.metric, results[self.metric], self.folder
            )

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        try:
            before = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        best: float = before["results"].get(self.metric, -math.inf)
        return value < best if self.metric == "loss" else value > best

    def _replace(self, engine: TrainingEngine, name: str) -> None:
        unfinished = self.folder / f".{name}.writing"
        save_weights(engine.full_precision_state(), unfinished)
        if distributed.rank() == 0:
            unfinished.replace(self.folder / name)

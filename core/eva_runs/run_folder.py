"""The output folder of a run on detectron2 or mmengine: its checkpoints and its logs.

Nothing heavy is imported: programs look here before they begin.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from eva_backbone.checkpoints.registry import require_known
from eva_backbone.checkpoints.run_folders import (
    complete_checkpoints,
    has_trained_weights,
    noted_checkpoint,
)
from eva_runs.run_logs import RunLogs, RunMessages

MESSAGES = RunMessages(unit="iteration")
_NUMBER = re.compile(r"\D*(\d+)\.pth")


class RunFolder:
    """The output folder of a run, whose newest checkpoint `last_checkpoint` names.

    Args:
        path: The folder.
        checkpoints: Pattern of the checkpoints; other files may be weights to begin from.
        foreign: Pattern of the checkpoints of the other framework.
        logs: Pattern of the logs that a checkpoint notes the length of, see `RunLogs`.
        order: Key by which the newest checkpoint is the last one.
        first: Number of the first iteration in the name of a checkpoint.
    """

    def __init__(
        self,
        path: Path,
        *,
        checkpoints: str,
        foreign: str,
        logs: str,
        order: Callable[[Path], float],
        first: int = 1,
    ) -> None:
        self.path, self.logs = path, RunLogs(path, logs)
        self._pattern, self._foreign = checkpoints, foreign
        self._order, self._first = order, first

    @property
    def checkpoints(self) -> list[Path]:
        """What a run may continue from: the checkpoint that is noted, then the newest first."""
        files = [file for file in self.path.glob(self._pattern) if file.is_file()]
        files.sort(key=self._order, reverse=True)
        noted = noted_checkpoint(self.path)
        return list(dict.fromkeys([noted, *files] if noted else files))

    @property
    def newest(self) -> Path | None:
        """The checkpoint that a run continues from; None without any."""
        return next(iter(self.checkpoints), None)

    def is_used(self) -> bool:
        """Return whether the folder holds a run, also one of `eva_engine`."""
        return has_trained_weights(self.path) or self.newest is not None

    def continues(self, *, resume: bool) -> bool:
        """Return whether a run continues in the folder.

        Raises:
            ValueError: If it holds a run that is not to be continued, or one of another trainer.
        """
        noted = noted_checkpoint(self.path)
        if complete_checkpoints(self.path) or (noted and noted.match(self._foreign)):
            raise ValueError(MESSAGES.foreign(self.path))
        newest = self.newest
        if not resume and self.is_used():
            raise ValueError(MESSAGES.used(self.path, checkpoint=newest.name if newest else ""))
        return resume and newest is not None

    def describe_saved(self, done: int | None = None) -> str:
        """Say what of a training is saved, after so many iterations if known, and how to go on."""
        newest = self.newest
        if newest is None:
            return MESSAGES.saved("")
        number = _NUMBER.fullmatch(newest.name)
        if number and done is None:
            done = int(number[1]) + 1 - self._first
        return MESSAGES.saved(newest.name, done=done)


def require_config(config: Path | None, weights: str | os.PathLike[str]) -> Path:
    """Return the config of weights; a ValueError if there is none."""
    if config is None:
        require_known(weights)
        raise ValueError(f"{weights} has no config of a run beside it: name its recipe as well")
    return config

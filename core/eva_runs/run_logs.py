"""The logs of a run, which go on where its checkpoint is, and the sentences that trainers say."""

import json
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_data.files import load_object, require_regular_file
from eva_data.saving import explain_os_errors, write_text

EVALUATED = "evaluated.json"
ANOTHER = "a signal to another process"


@dataclass(frozen=True, kw_only=True)
class RunMessages:
    """The sentences of a trainer, which differ in its words alone."""

    unit: str  # what it counts: "step" or "iteration"

    def resumed(self, done: int, total: int, checkpoint: Path) -> str:
        """Say after how many steps a run continues, as the last of its opening lines."""
        return f"resume   after {self.unit} {done:,} of {total:,} ({checkpoint.name})"

    def nothing_to_resume(self, folder: Path) -> str:
        """Say that a run that was to be continued begins."""
        return f"{folder} has no checkpoint to continue from: the run begins at {self.unit} 1"

    def finished(self, folder: Path, total: int) -> str:
        """Say that there is nothing left to train."""
        return f"{folder} has a finished run: all of its {total:,} {self.unit}s are done"

    def used(self, folder: Path, *, checkpoint: str = "") -> str:
        """Refuse a folder that has a run, with the name of its newest checkpoint if it is known."""
        reached = f" that reached {checkpoint}" if checkpoint else " already"
        fix = "continue it with --resume, or choose another --output"
        return f"{folder} has a run{reached}: {fix}"

    def foreign(self, folder: Path) -> str:
        """Refuse a folder that has a run of a trainer with other checkpoints."""
        return f"{folder} has a run of another trainer: choose another --output"

    def saved(self, checkpoint: str, *, done: int | None = None) -> str:
        """Say what of a run is saved, by its newest checkpoint or "", and how to go on."""
        again = "and the same command with --resume"
        if not checkpoint:
            return f"nothing is saved, {again} begins at {self.unit} 1"
        name = f"{self.unit} {done:,} is saved ({checkpoint})" if done else f"{checkpoint} is saved"
        return f"{name}, {again} continues after it"

    def stopped(self, by: str | None, saved: str) -> str:
        """Say what is saved of a run that a signal stopped; None for one to another process."""
        return f"stopped by {by or ANOTHER}: {saved}"

    def not_finite(self, quantity: str, at: int, culprit: str) -> str:
        """Say that a run ends because of a number ("The loss") at a step (from 1)."""
        return (
            f"{quantity} became infinite or NaN at {self.unit} {at:,}, and all processes stop "
            f"before the optimizer's step: look at the learning rate, and at {culprit}"
        )


def read_log(file: Path, step: str = "step") -> Iterator[dict[str, Any]]:
    """Read the JSON lines of a log with a whole number as `step`; a kill may have cut others."""
    if not file.exists():
        return
    require_regular_file(file)
    with file.open(encoding="utf-8", errors="replace") as texts:
        for raw_line in texts:
            try:
                line = json.loads(raw_line)
                operator.index(line[step])
            except (ValueError, KeyError, TypeError):
                continue
            yield line


class RunLogs:
    """The logs of a run, which go on where the checkpoint is that it continues from.

    A checkpoint notes how long they were. An evaluation comes behind it, and once it is over
    `evaluated.json` notes its step, and how long they are with it.

    Args:
        folder: Output folder of the run.
        pattern: Of the files below it.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self.folder, self.pattern = folder, pattern

    def sizes(self) -> dict[str, int]:
        """Measure the logs in bytes, by their paths below the folder, for a checkpoint."""
        files = sorted(self.folder.glob(self.pattern))
        return {file.relative_to(self.folder).as_posix(): file.stat().st_size for file in files}

    def note_evaluation(self, step: int, sizes: Mapping[str, int]) -> None:
        """Note that the evaluation after so many steps is over."""
        write_text(self.folder / EVALUATED, json.dumps({"step": step, "logs": sizes}))

    def is_evaluated(self, step: int) -> bool:
        """Return whether the evaluation after so many steps is over."""
        return self._noted().get("step") == step

    def forget_evaluation(self) -> None:
        """Let the last evaluation be done again."""
        (self.folder / EVALUATED).unlink(missing_ok=True)

    def cut(self, step: int, sizes: Mapping[str, int] | None) -> None:
        """Cut off what was logged after so many steps, when the checkpoint had noted `sizes`.

        An evaluation that is over stays. None is of a checkpoint that has noted nothing.
        """
        if self.is_evaluated(step):
            sizes = self._noted()["logs"]
        now = self.sizes() if sizes is not None else {}
        for name, size in now.items():
            before, file = (sizes or {}).get(name, 0), self.folder / name
            if size > before:
                with explain_os_errors(file):
                    os.truncate(file, before)
        if not step or self._noted().get("step", 0) > step:  # of what this run does again
            self.forget_evaluation()

    def _noted(self) -> dict[str, Any]:
        try:
            return load_object(self.folder / EVALUATED)
        except (OSError, ValueError):
            return {}

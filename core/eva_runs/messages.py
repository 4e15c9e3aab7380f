"""What every trainer says of a run that continues, ends early, or finds another one in its folder.

Numbers of steps are counts: step 30 is the thirtieth.
"""

from dataclasses import dataclass
from pathlib import Path

ANOTHER = "a signal to another process"


@dataclass(frozen=True, kw_only=True)
class RunSentences:
    """The sentences of a trainer, which differ in its words alone.

    Attributes:
        unit: What it counts: "step" or "iteration".
        resume: Option by which a run is continued.
        output: Option or setting that names the folder.
    """

    unit: str
    resume: str
    output: str

    def resumed(self, done: int, total: int, checkpoint: Path) -> str:
        """Say where a run continues, as the last of its opening lines.

        Args:
            done: Steps that are done.
            total: Steps of the complete run.
            checkpoint: Where it continues from.
        """
        return f"resume   after {self.unit} {done:,} of {total:,} ({checkpoint.name})"

    def nothing_to_resume(self, folder: Path) -> str:
        """Say that a run that was to be continued begins.

        Args:
            folder: Its folder.
        """
        return f"{folder} has no checkpoint to continue from: the run begins at {self.unit} 1"

    def finished(self, folder: Path, total: int) -> str:
        """Say that there is nothing left to train.

        Args:
            folder: Folder of the run.
            total: Steps of the complete run.
        """
        return f"{folder} has a finished run: all of its {total:,} {self.unit}s are done"

    def used(self, folder: Path, *, checkpoint: str = "") -> str:
        """Refuse a folder that has a run.

        Args:
            folder: Folder of the run.
            checkpoint: Name of its newest checkpoint, where one is known.
        """
        reached = f" that reached {checkpoint}" if checkpoint else " already"
        return (
            f"{folder} has a run{reached}: continue it with {self.resume}, or choose another "
            f"{self.output}"
        )

    def saved(self, checkpoint: str, *, done: int | None = None) -> str:
        """Say what of a run is saved, and how to go on.

        Args:
            checkpoint: Name of its newest checkpoint; empty without one.
            done: Steps that are done in it, where that is known.
        """
        if not checkpoint:
            begins = f"the same command with {self.resume} begins at {self.unit} 1"
            return f"nothing is saved, and {begins}"
        name = f"{self.unit} {done:,} is saved ({checkpoint})" if done else f"{checkpoint} is saved"
        return f"{name}, and the same command with {self.resume} continues after it"

    def stopped(self, by: str | None, saved: str) -> str:
        """Say that a run was stopped.

        Args:
            by: Name of the signal, or Ctrl-C; None for a signal to another process.
            saved: What is saved, from `saved`.
        """
        return f"stopped by {by or ANOTHER}: {saved}"

    def not_finite(self, what: str, at: int, found: str) -> str:
        """Say that a run ends because of a number.

        Args:
            what: The number: "The loss".
            at: The step in progress, from 1.
            found: Where to look.
        """
        return (
            f"{what} became infinite or NaN at {self.unit} {at:,}, and all processes stop before "
            f"the optimizer's step: look at the learning rate, and at {found}"
        )

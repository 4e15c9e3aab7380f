"""The command that a user may want to run after a training or an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from eva_data.commands import command_to_run
from eva_data.reports.content import Step


def demo_step(weights: str | Path, output: Path, flags: Sequence[str] = ()) -> Step:
    """Write the command that names what other pictures show, for the end of a run.

    Args:
        weights: Weights, as a user names them.
        output: Folder for its results.
        flags: Options of the weights, and their values.
    """
    command = command_to_run(
        "classification demo", "classification/demo.py",
        "--weights", str(weights), *flags, "--output", output, "PICTURE_OR_FOLDER",
    )  # fmt: skip
    return Step(text="Name what other pictures show.", command=command)

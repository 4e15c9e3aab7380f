"""The command that a user may want to run after a training or an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from eva_report.content import Step
from eva_runs.commands import command_to_run, folder_to_show


def demo_step(
    weights: str | Path, output: Path, flags: Sequence[str] = (), *, data: Sequence[str | None] = ()
) -> Step:
    """Write the command that names what pictures show, for the end of a run.

    Args:
        weights: Weights, as a user names them.
        output: Folder for its results.
        flags: Options of the weights, and their values.
        data: Data of the run, the best to be shown first.
    """
    command = command_to_run(
        "classification demo", "classification/demo.py",
        "--weights", str(weights), *flags, "--output", output,
        folder_to_show(*data, otherwise="PICTURE_OR_FOLDER"),
    )  # fmt: skip
    return Step(text="Name what pictures show.", command=command)

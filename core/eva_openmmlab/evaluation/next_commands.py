"""The commands that a user may want to run after a training or an evaluation."""

from pathlib import Path
from typing import Any

from eva_openmmlab.config.runs import config_of_run
from eva_openmmlab.terminal.data_lines import picture_folder
from eva_runs.commands import command_to_run
from eva_runs.record import Kind


def demo_command(runner: Any, kind: Kind, *, task: str) -> str:
    """Write the command that shows what weights find in the pictures of their evaluation.

    Args:
        runner: Runner of a training or an evaluation that has ended.
        kind: Which of both it was.
        task: Task of the recipes, such as "segmentation".
    """
    loader = runner.cfg.get("val_dataloader" if kind == "training" else "test_dataloader")
    pictures = picture_folder(loader.dataset) if loader else None
    output = _here(Path(runner.work_dir) / "demo")
    words = [*_model(runner, kind), pictures or "PICTURES", "--output", output]
    return command_to_run(f"{task} demo", f"{task}/demo.py", *words)


def evaluate_command(runner: Any, kind: Kind, *, task: str) -> str:
    """Write the command that scores the same weights again.

    Args:
        runner: Runner of a training or an evaluation that has ended.
        kind: Which of both it was.
        task: Task of the recipes.
    """
    return command_to_run(f"{task} evaluate", f"{task}/test.py", *_model(runner, kind))


def _model(runner: Any, kind: Kind) -> list[Path | str]:
    """Name the model: by the folder of its run, else by config and weights."""
    folder = Path(runner.work_dir)
    if kind == "training":
        return [_here(folder)]
    weights = str(runner._load_from)
    if Path(weights).exists():
        weights = str(_here(Path(weights)))
        if config_of_run(Path(weights)) is not None:
            return [weights]
    return [_here(folder / Path(runner.cfg.filename or "config.py").name), weights]


def _here(path: Path) -> Path:
    """Write a path from the current folder, if it is below it."""
    here, path = Path.cwd(), path.absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path

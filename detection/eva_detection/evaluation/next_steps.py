"""The commands that a user may want to run after a training or an evaluation."""

import os
import shlex
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from eva_detection.config.saved import config_of_run
from eva_detection.data.custom_data import image_folder, registered_names
from eva_report.content import Step
from eva_runs.commands import command_to_run

_ROOT = "DETECTRON2_DATASETS"


def demo_command(cfg: DictConfig, weights: str) -> str | None:
    """Write the command that draws what a detector finds in the pictures of its test set.

    Args:
        cfg: The config of the run.
        weights: Weights of the detector.

    Returns:
        The command; None if the pictures are not in a folder of their own.
    """
    pictures = image_folder(OmegaConf.select(cfg, "dataloader.test.dataset"))
    if pictures is None:
        return None
    folder = Path(cfg.train.output_dir)
    words: list[str | Path] = ["--config-file", folder / "config.yaml", "--weights", weights]
    if Path(weights).parent == folder:  # of a training: its folder is enough
        words = [folder]
    elif Path(weights).is_dir() and config_of_run(weights):
        words = [weights]
    words += ["--output", folder / "pictures", pictures]
    return _needing_data(cfg, command_to_run("detection demo", "detection/demo.py", *words))


def next_steps(cfg: DictConfig, weights: str, *, picture: Path | None) -> list[Step]:
    """List what can be done with a detector that was trained or evaluated.

    Args:
        cfg: The config of the run.
        weights: Weights of the detector.
        picture: A picture to trace the export with; None without one.
    """
    folder = Path(cfg.train.output_dir)
    steps = []
    if demo := demo_command(cfg, weights):
        steps.append(Step(text="Draw what it finds in pictures, folders or videos", command=demo))
    config: list[str | Path] = ["--config-file", folder / "config.yaml"]
    values = [f"train.init_checkpoint={weights}", f"train.output_dir={folder}_evaluation"]
    command = command_to_run(
        "detection train", "detection/train_net.py", "--eval-only", *config, *values
    )
    steps.append(Step(text="Evaluate it again", command=_needing_data(cfg, command)))
    if picture is not None:
        words = ["--weights", weights, "--format", "torchscript", "--image", str(picture)]
        command = command_to_run(
            "detection export",
            "detection/export.py",
            *config,
            *words,
            "--output",
            folder / "model.ts",
        )
        steps.append(Step(text="Export it, to run without this toolkit", command=command))
    return steps


def _needing_data(cfg: DictConfig, command: str) -> str:
    """Put the place of registered data sets before a command, where this process has one."""
    node = OmegaConf.select(cfg, "dataloader.test.dataset")
    if root := os.environ.get(_ROOT) if registered_names(node) else None:
        return f"{_ROOT}={shlex.quote(root)} {command}"
    return command

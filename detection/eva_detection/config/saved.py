"""The config that a run has saved, given its weights. It imports nothing heavy."""

import os
from pathlib import Path

from eva_backbone.checkpoints.registry import list_official_files, resolve_source
from eva_data.files import home_expanded

SAVED = "config.yaml"


def config_of_run(weights: str | os.PathLike[str]) -> Path | None:
    """Find the config that a training has left with its weights.

    Args:
        weights: Folder of a run, or a file of weights in it, also with `~`.

    Returns:
        Its `config.yaml`, or None where there is none.
    """
    place = home_expanded(weights)
    file = (place if place.is_dir() else place.parent) / SAVED
    return file if place.exists() and file.is_file() else None


def require_config(
    config_file: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str],
    *,
    option: str = "from_config",
) -> str | os.PathLike[str]:
    """Return the config of a detector: that which is given, or else the one of its run.

    Args:
        config_file: Path or name of a recipe; None to look for one.
        weights: Weights of the detector.
        option: What takes `config_file`, for the message.

    Raises:
        ValueError: If there is none.
        FileNotFoundError: If there are no such weights either.
    """
    found = config_file or config_of_run(weights)
    if found is not None:
        return found
    name = os.fspath(weights)
    official = {one for entry in list_official_files() for one in (entry.name, entry.stem)}
    if not home_expanded(name).exists() and name not in official:
        resolve_source(name)  # which says what was looked for
    raise ValueError(
        f"no {SAVED} of a training lies with {name}: name the recipe of these weights with {option}"
    )

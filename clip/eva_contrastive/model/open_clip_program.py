"""What commands must know of open_clip's folders before open_clip and torch are imported."""

import os
from pathlib import Path

from eva_backbone.checkpoints.registry import resolve_source
from eva_engine.commands.convert import FolderForm, OtherPrograms, deferred

CONFIG = "open_clip_config.json"  # marks a folder that open_clip reads as `local-dir:`
WEIGHTS = "open_clip_model.safetensors"
_WEIGHTS = (  # in the order in which open_clip prefers them
    WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
CARD = "README.md"


def open_clip_weights(folder: Path) -> Path | None:
    """Find the weights in a folder that open_clip reads as `local-dir:`.

    Args:
        folder: Any path.

    Returns:
        The file that open_clip would take; None if this is not such a folder.

    Raises:
        FileNotFoundError: If the folder has no weights.
    """
    if not (folder / CONFIG).is_file():
        return None
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has {CONFIG}, and no weights beside it such as {WEIGHTS}")


def weights_file(source: str | os.PathLike[str]) -> Path:
    """Find the file of weights that a name, a path or a folder of open_clip stands for.

    Args:
        source: As for `eva_contrastive.model.loading.load_eva_clip`.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If a file has an official name and other content.
    """
    return open_clip_weights(Path(source)) or resolve_source(source)


OPEN_CLIP = OtherPrograms(
    folders={
        "open-clip": FolderForm(
            files=(CONFIG, WEIGHTS, CARD),
            write=deferred("eva_contrastive.model.open_clip_folder", "write_folder"),
        )
    },
    find=open_clip_weights,
    official_names=deferred("eva_contrastive.model.open_clip_form", "to_official"),
)

"""What `convert_checkpoint.py` must know of open_clip, without open_clip and torch."""

from pathlib import Path

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

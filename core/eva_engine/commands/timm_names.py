"""Files of a folder that timm reads as `local-dir:`, found without timm and torch."""

import json
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
# In the order in which timm prefers them.
_WEIGHTS = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")


def timm_weights(folder: Path) -> Path | None:
    """Find the weights in a folder that timm reads as `local-dir:`.

    Args:
        folder: Any path.

    Returns:
        The file that timm would take; None if this is not such a folder.

    Raises:
        FileNotFoundError: If the folder has no weights.
    """
    if not _is_of_timm(folder / CONFIG):
        return None
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has timm's {CONFIG}, and no weights such as {WEIGHTS}")


def _is_of_timm(file: Path) -> bool:
    """Test whether a config is timm's: a run's and a transformers model's have its name too."""
    if not file.is_file():
        return False
    try:
        config: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(config, dict) and isinstance(config.get("architecture"), str)

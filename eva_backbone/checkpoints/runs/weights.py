"""The weights of a run, given its output folder, whichever trainer made it."""

import logging
from pathlib import Path

from eva_backbone.checkpoints.runs import engine, frameworks

logger = logging.getLogger(__name__)

_LOOKED_FOR = (
    "best/ and checkpoints/step_N (pre-training, classification, video, CLIP), model_final.pth and "
    "last_checkpoint (detectron2), best_*.pth, iter_N.pth and epoch_N.pth (mmengine)"
)


def weights_of_run(folder: Path, *, ema: bool | None = None) -> Path:
    """Find the weights of a run: the best ones if it kept them, else the last complete ones.

    Args:
        folder: Output folder of any training, or a checkpoint in it.
        ema: True for the moving average, False for the weights without it; None takes the better
            one of the best weights, and else the weights without it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there are no such weights; the message says what was looked for.
    """
    if engine.is_complete(folder):
        found: Path | None = engine.of_checkpoint(folder, ema=bool(ema))
    elif (folder / engine.CHECKPOINTS).is_dir():
        found = engine.best_of_engine(folder, ema=ema)
        found = found or engine.newest_of_engine(folder, ema=bool(ema))
    else:
        found = _of_framework(folder)
        if found is not None and ema:
            raise FileNotFoundError(f"{folder} has no moving average: its trainer keeps none")
    if found is None:
        raise FileNotFoundError(
            f"{str(folder)!r} is a folder without weights of a run: looked for {_LOOKED_FOR}; name "
            "the output folder of a training, or one file of weights"
        )
    logger.info("of the run in %s: %s", folder, found.relative_to(folder))
    return found


def named_weights(source: str) -> str:
    """Name weights for people: a run's folder by the file that is taken of it.

    Args:
        source: Name, path or address; empty for none.
    """
    if not source:
        return "random"
    try:
        folder = Path(source).expanduser()
        file = weights_of_run(folder) if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # said where the weights are read
        return source
    if file is None:
        return source
    average = " (moving average)" if file.name == engine.EMA_WEIGHTS else ""
    return f"{file}{average}"


def _of_framework(folder: Path) -> Path | None:
    if best := frameworks.best_of_mmengine(folder):
        return best
    if frameworks.is_mmengine_run(folder):
        return frameworks.last_of_mmengine(folder)
    return frameworks.last_of_detectron2(folder)

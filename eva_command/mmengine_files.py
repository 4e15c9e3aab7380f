"""Checkpoints of runs on mmengine, in which logged numbers lie beside the weights."""

import sys
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def reading_runs(arguments: Sequence[str] | None) -> AbstractContextManager[None]:
    """Allow the numbers in the checkpoints that a command line names to be read.

    mmengine is imported only where there is such a checkpoint.

    Args:
        arguments: The command line; None for the process's.

    Returns:
        A context.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not any(word.endswith(".pth") and _of_mmengine(Path(word)) for word in words):
        return nullcontext()
    from eva_openmmlab.weights import safe_metadata

    return safe_metadata()


def _of_mmengine(file: Path) -> bool:
    if not file.is_file() or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return any(b"mmengine." in archive.read(name) for name in pickles)

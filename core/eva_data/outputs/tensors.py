"""Write `.safetensors` files completely or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor

from eva_data.files import UnwritableError, explained, replacing


def write_tensors(
    values: Mapping[str, Tensor | NDArray[Any]], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors, or numpy arrays, completely or not at all.

    Args:
        values: Name -> tensor, or name -> array, all of one kind.
        file: The file; its folder exists.
        metadata: Texts beside them.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    contiguous: dict[str, Any] = {
        name: value.contiguous() if isinstance(value, Tensor) else np.ascontiguousarray(value)
        for name, value in values.items()
    }
    of_arrays = all(isinstance(value, np.ndarray) for value in contiguous.values())
    save: Callable[..., None] = save_arrays if of_arrays else save_file
    with replacing(file) as part:
        with explained(file):
            part.touch()
        mode = part.stat().st_mode  # safetensors would leave a file that only its owner can read
        try:
            save(contiguous, part, metadata)
        except SafetensorError as error:  # its own, also for what the system says
            reason = str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]
            raise UnwritableError(f"{file} cannot be written: {reason}") from error
        part.chmod(mode)

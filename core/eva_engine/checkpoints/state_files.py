"""How a checkpoint's state is read and written: no code of a file runs, no failed write is lost."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from eva_backbone.checkpoints.reading import read_torch_file
from eva_data.files import explained, writing
from eva_engine import distributed


class Failures:
    """The first failure to write of this process; all processes raise it together."""

    def __init__(self) -> None:
        self.first: OSError | None = None

    @contextlib.contextmanager
    def noted(self, path: Path) -> Iterator[None]:
        """Keep the system's errors of the block for `raise_together`."""
        try:
            with explained(path):
                yield
        except OSError as error:
            self.first = self.first or error

    def raise_together(self) -> None:
        """Raise on all processes if one of them noted a failure."""
        distributed.raise_together(self.first)


def safe_checkpoint_engine(failures: Failures) -> Any:
    """Make DeepSpeed's reader and writer, but one that runs no code of a file (`weights_only`).

    Args:
        failures: Receives failures to write.
    """
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]

    class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            with failures.noted(Path(path)):
                super().makedirs(path, exist_ok)

        def save(self, state_dict: Any, path: str) -> None:
            with failures.noted(Path(path)), writing(Path(path)) as stream:
                torch.save(state_dict, stream)

        def load(self, path: str, map_location: Any = None) -> Any:
            return read_torch_file(path, allowed=allowed)  # DeepSpeed moves them to their device

    return SafeCheckpointEngine()

"""Checkpoints of a run: complete or not there.

`checkpoints/step_00001000/` holds DeepSpeed's files of every process, the moving average, the
weights as `model.safetensors` and `model_ema.safetensors` (float32, official names), `run.json`,
and `COMPLETE`, which lists all files with their sizes. It is written in a folder of another name,
flushed to the disk and then renamed, so that a run which is killed at any moment leaves a complete
checkpoint behind or none.
"""

import json
import logging
import os
import pickle
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eva_engine import distributed
from eva_engine.deepspeed_engine import TrainingEngine
from eva_engine.moving_average import MovingAverage

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
MARKER = "COMPLETE"
WEIGHTS, EMA_WEIGHTS = "model.safetensors", "model_ema.safetensors"
_RUN, _CONFIG = "run.json", "config"
_STATE = "deepspeed"
_PREFIX, _TEMPORARY = "step_", ".writing_"


class RunCheckpoints:
    """The checkpoints of one run.

    Args:
        output: Folder of the run, which all processes see.
        keep: Complete checkpoints that are kept; older ones are removed after a save.
        config: Of the run, which the weights' files hold too, see `read_config`.
    """

    def __init__(self, output: Path, *, keep: int, config: Mapping[str, Any] | None = None) -> None:
        self.folder = output / FOLDER
        self.keep, self.config = keep, config

    def complete(self) -> list[Path]:
        """Folders of all complete checkpoints, oldest first."""
        return sorted(folder for folder in self.folder.glob(f"{_PREFIX}*") if is_complete(folder))

    def newest(self) -> Path | None:
        """The newest complete checkpoint as the main process sees it; the same on all processes.

        Raises:
            ValueError: On all processes, if one of them does not see the main process's folder.
        """
        token = distributed.gather(uuid.uuid4().hex)[0]
        file = self.folder / f".seen_by_all_{token}"
        main = distributed.rank() == 0
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            file.touch()
        distributed.barrier()
        seen = distributed.gather(file.exists())
        if main:
            file.unlink()
        if not all(seen):
            blind = [number for number, sees in enumerate(seen) if not sees]
            raise ValueError(
                f"processes {blind} do not see {self.folder}, which the first process made: put "
                "the output on a file system that all machines share"
            )
        complete = self.complete() if main else []
        name: str | None = distributed.gather(complete[-1].name if complete else None)[0]
        return self.folder / name if name else None

    def save(
        self,
        engine: TrainingEngine,
        average: MovingAverage | None,
        *,
        step: int,
        run: dict[str, Any],
    ) -> Path:
        """Write a checkpoint; the same call on all processes.

        Args:
            engine: The engine that trains.
            average: Its moving average.
            step: Optimizer steps done.
            run: What `run.json` shall hold besides the step.

        Returns:
            The folder.
        """
        final = self.folder / f"{_PREFIX}{step:08d}"
        temporary = self.folder / f"{_TEMPORARY}{final.name}"
        main = distributed.rank() == 0
        if main:
            for rest in self.folder.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(rest, ignore_errors=True)
            temporary.mkdir(parents=True)
        distributed.barrier()
        engine.engine.save_checkpoint(str(temporary), tag=_STATE, save_latest=False)
        engine.share_buffers()
        save_weights(engine.full_precision_state(), temporary / WEIGHTS, self.config)
        if average is not None:
            if main or engine.zero_stage:
                torch.save(average.state_dict(), temporary / _average_file(engine))
            with average.applied():
                save_weights(engine.full_precision_state(), temporary / EMA_WEIGHTS, self.config)
        distributed.barrier()
        if main:
            text = json.dumps({"step": step, **run}, indent=2)
            (temporary / _RUN).write_text(text, encoding="utf-8")
            _mark_complete(temporary)
            shutil.rmtree(final, ignore_errors=True)  # what a removal that was cut short left
            temporary.rename(final)
            _flush(self.folder)
            write_whole(self.folder / "latest", final.name)
            self._remove_old()
        distributed.barrier()
        return final

    def _remove_old(self) -> None:
        kept = self.complete()[-self.keep :]
        for folder in self.folder.glob(f"{_PREFIX}*"):
            if folder not in kept:
                # a removal that is cut short leaves no complete one, and the next goes on with it
                (folder / MARKER).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint has all its files in full."""
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError):
        return False


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` of a checkpoint holds."""
    content: dict[str, Any] = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    return content


def restore(folder: Path, engine: TrainingEngine, average: MovingAverage | None) -> None:
    """Set engine and moving average from a checkpoint; the same call on all processes.

    Args:
        folder: A complete checkpoint.
        engine: The engine, as when it was saved.
        average: Its moving average.

    Raises:
        ValueError: If the run has another number of processes, precision, ZeRO stage or model, or
            an average that the saved one lacks; if a file holds code.
    """
    _check_can_continue(read_run(folder), engine, folder)
    average_file = folder / _average_file(engine)
    if average is not None and not average_file.exists():
        raise ValueError(
            f"{folder.name} has no moving average: set ema_decay=0 as when it was saved"
        )
    engine.engine.checkpoint_engine = safe_checkpoint_engine()
    try:
        with engine.settings_kept():
            loaded, _ = engine.engine.load_checkpoint(str(folder), tag=_STATE)
        if average is not None:
            average.load_state_dict(torch.load(average_file, weights_only=True))
    except RuntimeError as error:
        raise ValueError(
            f"{folder} has the state of another model, choose another output: {error}"
        ) from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{folder} holds more than a run's state; nothing of it was carried out. Take a "
            "checkpoint that this program wrote"
        ) from error
    if loaded is None:
        raise ValueError(f"DeepSpeed found no state in {folder}")


def _check_can_continue(saved: dict[str, Any], engine: TrainingEngine, folder: Path) -> None:
    instead = f"or begin a new run from {folder / WEIGHTS} in another output"
    for name, now in (("zero_stage", engine.zero_stage), ("precision", engine.precision)):
        if saved[name] != now:
            raise ValueError(
                f"the run began with {name}={saved[name]} and cannot continue with {now}: go back "
                f"to {saved[name]}, {instead}"
            )
    if engine.zero_stage and saved["processes"] != distributed.world_size():
        raise ValueError(
            f"{folder.name} was saved by {saved['processes']} processes, each with its part of the "
            f"optimizer's state, and this run has {distributed.world_size()}: start "
            f"{saved['processes']}, {instead}"
        )


def safe_checkpoint_engine() -> Any:
    """DeepSpeed's reader, but one that runs no code of the file (`weights_only`)."""
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]

    class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
        def load(self, path: str, map_location: Any = None) -> Any:
            with torch.serialization.safe_globals(allowed):
                return torch.load(path, map_location=map_location, weights_only=True)

    return SafeCheckpointEngine()


def _average_file(engine: TrainingEngine) -> str:
    """Each process has its part with ZeRO 1, and the same whole without."""
    return f"average_{distributed.rank() if engine.zero_stage else 0:05d}.pt"


def save_weights(
    state: dict[str, Tensor], file: Path, config: Mapping[str, Any] | None = None
) -> None:
    """Write tensors in the first process; the others only take part in gathering them.

    Args:
        state: Name -> tensor.
        file: `.safetensors`, not written atomically.
        config: Of the run, for `read_config`.

    Raises:
        OSError: If the disk is full, for example.
    """
    if distributed.rank():
        return
    metadata = {_CONFIG: json.dumps(config)} if config is not None else None
    write_tensors(state, file, metadata)


def write_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None) -> None:
    """Write a `.safetensors` file.

    Args:
        tensors: Name -> tensor.
        file: Not written atomically.
        metadata: Texts beside them.

    Raises:
        OSError: If the disk is full, for example.
    """
    try:
        whole = {name: value.contiguous() for name, value in tensors.items()}
        save_file(whole, file, metadata=metadata)
    except SafetensorError as error:  # its own, also for what the system says
        raise OSError(f"{file} cannot be written ({error})") from error


def read_config(file: Path) -> dict[str, Any] | None:
    """The config of the run that wrote a `.safetensors` file; None if it does not say.

    Args:
        file: Any weights.
    """
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as content:
        text = (content.metadata() or {}).get(_CONFIG)
    config: dict[str, Any] | None = json.loads(text) if text else None
    return config


def _mark_complete(folder: Path) -> None:
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        _flush(file)
        files[file.relative_to(folder).as_posix()] = file.stat().st_size
    for inner in [path for path in folder.rglob("*") if path.is_dir()]:
        _flush(inner)
    write_whole(folder / MARKER, json.dumps(files, indent=1))
    _flush(folder)


def write_whole(file: Path, text: str) -> None:
    """Write a file that is there in full or as it was before.

    Args:
        file: The file.
        text: Its content.
    """
    temporary = file.with_name(f".{file.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    _flush(temporary)
    temporary.replace(file)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

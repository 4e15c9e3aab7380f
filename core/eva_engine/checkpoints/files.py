"""Files of a checkpoint: digests, weights as `.safetensors`, state, the best weights."""

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eva_backbone.checkpoints.reading import read_torch_file
from eva_backbone.checkpoints.run_folders import BEST, MARKER, RECORD, listed_files
from eva_backbone.checkpoints.run_folders import EMA_WEIGHTS as EMA_WEIGHTS
from eva_backbone.checkpoints.run_folders import WEIGHTS as WEIGHTS
from eva_backbone.checkpoints.run_folders import is_complete as is_complete
from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import (
    explained,
    flush,
    make_folder,
    remove_unfinished,
    write_tensors,
    write_text,
    writing,
)
from eva_engine import distributed
from eva_engine.steps.engine import TrainingEngine
from eva_runs.processes import is_main, on_main, together

logger = logging.getLogger(__name__)

RUN = "run.json"
_FORMAT = 2  # of the marker: {"format": 2, "files": {name: [size, SHA-256]}}; 1 was {name: size}
_CONFIG = "config"


def mark_complete(folder: Path) -> None:
    """Flush all files and list them with sizes and digests; the same call on all processes.

    Args:
        folder: Folder of the checkpoint, written to the end.

    Raises:
        OSError: If something cannot be read or written.
    """
    paths = sorted(folder.rglob("*")) if is_main() else []
    names: list[str] = distributed.gather(
        [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    )[0]

    def digests() -> dict[str, tuple[int, str]]:
        own = {}
        for name in names[distributed.rank() :: distributed.world_size()]:
            flush(folder / name)
            own[name] = ((folder / name).stat().st_size, sha256_of(folder / name))
        return own

    parts = distributed.gather(together(digests))
    files = {name: entry for part in parts for name, entry in part.items()}

    def mark() -> None:
        for inner in (path for path in paths if path.is_dir()):
            flush(inner)
        listed = {"format": _FORMAT, "files": {name: files[name] for name in names}}
        write_text(folder / MARKER, json.dumps(listed, indent=1))
        flush(folder)

    on_main(mark)


def damage_of(folder: Path, *, part: int = 0, parts: int = 1) -> str | None:
    """Read a checkpoint's files and compare their digests.

    Args:
        folder: Folder of the checkpoint.
        part: Number of the share of the files to read.
        parts: Number of shares.

    Returns:
        The damage, or None. Of a checkpoint without digests only sizes are compared.
    """
    files = listed_files(folder)
    if isinstance(files, str):
        return files
    for name, digest in list(files.items())[part::parts]:
        try:
            if digest is not None and sha256_of(folder / name) != digest:
                return f"{name} is not what was written (another SHA-256)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    if part == 0:
        try:
            read_run(folder)
        except (OSError, ValueError) as error:
            return f"{RUN} cannot be read ({error})"
    return None


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.json` of a checkpoint.

    Raises:
        ValueError: If it is not the record of a run.
    """
    content = json.loads((folder / RUN).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise ValueError("it names no step")
    return content


def save_weights(
    state: dict[str, Tensor], file: Path, config: Mapping[str, Any] | None = None
) -> None:
    """Write tensors in the main process, completely or not at all; the others do nothing.

    Args:
        state: Name -> tensor.
        file: `.safetensors`.
        config: Config of the run, for `read_config`.

    Raises:
        UnwritableError: If the disk is full, for example.
    """
    if is_main():
        metadata = {_CONFIG: json.dumps(config)} if config is not None else None
        write_tensors(state, file, metadata)


def read_config(file: Path) -> dict[str, Any] | None:
    """Read the config of the run that wrote a `.safetensors` file; None if it holds none.

    Args:
        file: Weights of any origin.

    Raises:
        ValueError: If the file is damaged, or what it holds is not a config.
    """
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as content:
            text = (content.metadata() or {}).get(_CONFIG) or "null"
        config = json.loads(text)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, or not a .safetensors file ({error})") from error
    if config is not None and not isinstance(config, dict):
        raise ValueError(f"{file} notes a config that is not a table: {text[:60]}")
    noted: dict[str, Any] | None = config
    return noted


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


def check_metric(metric: str, results: Sequence[str]) -> None:
    """Refuse a metric that is not a result of the evaluation.

    Args:
        metric: Name of a result, or "".
        results: Names of all results; empty without validation data.

    Raises:
        ValueError: Naming both.
    """
    if metric and metric not in results:
        raise ValueError(
            f"best_metric={metric} is not a result of the evaluation, which has "
            f"{', '.join(results) or 'none without validation data'}; '' keeps no best weights"
        )


class BestWeights:
    """Keeps the best weights, and the best moving average if there is one, in the folder `best`.

    Each has an evaluation and a best step of its own. `best.json` has step and results of both; a
    file that it does not name is not complete.

    Args:
        output: Folder of the run.
        metric: Name of the result that decides; of `loss` the smallest is best, else the largest.
        begins: Whether the run begins; what an earlier one left does not count then.
        config: Config of the run, for `read_config`.
    """

    def __init__(
        self, output: Path, *, metric: str, begins: bool, config: Mapping[str, Any]
    ) -> None:
        self.folder, self.metric, self.config = output / BEST, metric, config
        if is_main():
            remove_unfinished(self.folder)  # of a save that a kill cut short
            if begins:
                (self.folder / RECORD).unlink(missing_ok=True)

    def consider(
        self, engine: TrainingEngine, name: str, *, step: int, results: Mapping[str, float]
    ) -> None:
        """Keep the engine's present weights if they are better; called on all processes.

        Args:
            engine: The engine that trains, with the weights that were evaluated.
            name: File for them, `WEIGHTS` or `EMA_WEIGHTS`.
            step: Step that was evaluated, from 0.
            results: Results of the evaluation.

        Raises:
            OSError: If the disk is full, for example.
        """
        kept = self._record() if is_main() else {}
        better = is_main() and self._is_better(results[self.metric], kept.get(name))
        if not distributed.gather(better)[0]:
            return
        file = self.folder / name

        def forget() -> None:
            make_folder(self.folder)
            self._write({key: value for key, value in kept.items() if key != name})

        def save() -> None:
            with explained(file):
                save_weights(state, file, self.config)
            self._write(kept | {name: {"step": step, "results": dict(results)}})

        on_main(forget)
        state = engine.full_precision_state()
        on_main(save)
        logger.info("best %s so far: %.5g, kept in %s", self.metric, results[self.metric], file)

    def _is_better(self, value: float, kept: Mapping[str, Any] | None) -> bool:
        if not math.isfinite(value):
            return False
        if kept is None or self.metric not in kept["results"]:
            return True
        best: float = kept["results"][self.metric]
        return value < best if self.metric == "loss" else value > best

    def _record(self) -> dict[str, Any]:
        file = self.folder / RECORD
        try:
            record: dict[str, Any] = json.loads(file.read_text("utf-8"))
            return {name: kept for name, kept in record.items() if kept["results"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            logger.warning(
                "%s cannot be read (%s): the next weights count as the best", file, error
            )
            return {}

    def _write(self, record: Mapping[str, Any]) -> None:
        write_text(self.folder / RECORD, json.dumps(record, indent=2))

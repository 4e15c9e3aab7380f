"""Files of a checkpoint: digests, weights as `.safetensors`, state, the best weights."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from eva_backbone.checkpoints.run_folders import (
    BEST,
    EMA_WEIGHTS as EMA_WEIGHTS,
    EVALUATION,
    MARKER,
    RECORD,
    WEIGHTS as WEIGHTS,
    evaluation_of_best,
    is_complete as is_complete,
    listed_files,
)
from eva_data.saving import (
    explain_os_errors,
    flush,
    remove_unfinished,
    write_tensors,
    write_text,
)
from eva_engine import distributed
from eva_engine.config import require
from eva_runs.adapters import Adapters
from eva_runs.checkpoint_store import (
    CheckpointStore,
    Digest,
    describe_difference,
    digest_of,
)
from eva_runs.processes import is_main, run_on_main_rank

if TYPE_CHECKING:  # DeepSpeed
    from eva_engine.steps.engine import TrainingEngine

logger = logging.getLogger(__name__)

RUN = "run.json"
_CONFIG = "config"


class FolderStore(CheckpointStore):
    """Writes files of a checkpoint that is a folder, for one list of all their digests.

    Attributes:
        folder: The folder, which has another name until the checkpoint is complete.
        digests: Sizes and SHA-256 of the files that this process has written, by their names below.
    """

    folder: Path

    def begin(self, folder: Path) -> None:
        """Begin another checkpoint."""
        self.folder, self.digests = folder, dict[str, Digest]()

    def note(self, file: Path, digest: Digest | None) -> None:
        """Note the digest of a file for the list."""
        if digest:
            self.digests[file.relative_to(self.folder).as_posix()] = digest

    def add(self, file: Path, write: Callable[[Path], object]) -> None:
        """Let a function write a file, and perhaps others in a folder that it makes for it."""
        made = not file.parent.exists()

        def work() -> None:
            with explain_os_errors(file):
                write(file)
                for entry in file.parent.iterdir() if made else [file]:
                    self.note(entry, digest_of(entry, self.writer))

        self.writer.submit(work)


def mark_complete(folder: Path, digests: Mapping[str, Digest] | None = None) -> None:
    """List the files of a checkpoint as {"files": {name: [size, SHA-256]}}, and flush all folders.

    Without `digests` of them the files are read.
    """
    paths = sorted(folder.rglob("*"))
    for inner in (path for path in paths if path.is_dir()):
        flush(inner)
    if digests is None:
        files = (path for path in paths if path.is_file())
        digests = {file.relative_to(folder).as_posix(): digest_of(file) for file in files}
    write_text(folder / MARKER, json.dumps({"files": dict(sorted(digests.items()))}, indent=1))
    flush(folder)


def find_damage(folder: Path, *, part: int = 0, parts: int = 1) -> str | None:
    """Compare the digests of a checkpoint's files, of one part of so many; return the damage."""
    files = listed_files(folder)
    if isinstance(files, str):
        return files
    for name, digest in list(files.items())[part::parts]:
        damage = describe_difference(folder / name, digest)
        if damage:
            return f"{name}: {damage}"
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
    state: dict[str, Tensor],
    file: Path,
    config: Mapping[str, Any] | None = None,
    adapters: Adapters | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors, and a config for `read_config`, in the main process; the others do nothing.

    Best weights note their `evaluation`, for `evaluation_of_best`.
    """
    if is_main():
        metadata = {_CONFIG: json.dumps(config)} if config is not None else None
        if evaluation is not None:
            metadata = (metadata or {}) | {EVALUATION: json.dumps(evaluation)}
        if adapters is None:
            write_tensors(state, file, metadata)
        else:
            adapters.write(state, file.parent, metadata)


def read_config(file: Path) -> dict[str, Any] | None:
    """Read the config of the run that wrote a file of weights; None if it holds none.

    Raises:
        ValueError: If the file is damaged, or what it holds is not a config.
    """
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as content:
            serialized = (content.metadata() or {}).get(_CONFIG) or "null"
        config: dict[str, Any] | None = json.loads(serialized)
        is_table = config is None or isinstance(config, dict)
        require(is_table, f"it notes a config that is not a table: {serialized[:60]}")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, or not a .safetensors file ({error})") from error
    return config


def rank_results(results: Mapping[str, float], metric: str) -> tuple[float, float]:
    """Rank an evaluation by a metric, the larger the better, or the smaller `loss`; then by loss.

    With few validation samples many evaluations have the same score.
    """
    values = (-results.get("loss", math.inf), results.get(metric, -math.inf))
    loss, score = (value if math.isfinite(value) else -math.inf for value in values)
    return (loss if metric == "loss" else score), loss


class BestWeights:
    """Keeps the best weights, and the best moving average if there is one, in the folder `best`.

    Each has an evaluation and a best step of its own, by `rank_results`; of equals the later is
    best. `best.json` has step and results of both, and each file its own, which count if a kill
    came between the two. What an earlier run left does not count for one that begins.
    """

    def __init__(
        self, output: Path, *, metric: str, begins: bool, config: Mapping[str, Any]
    ) -> None:
        self.folder, self.metric, self.config = output / BEST, metric, config
        if is_main():
            remove_unfinished(self.folder)  # of a save that a kill cut short
            if begins:
                (self.folder / RECORD).unlink(missing_ok=True)
            else:
                before = self._record()
                record = {name: evaluation_of_best(output, self.folder / name) for name in before}
                if record != before:
                    self._write(record)

    def consider(
        self, engine: "TrainingEngine", name: str, *, step: int, results: Mapping[str, float]
    ) -> None:
        """Keep the engine's present weights if they are better; called on all processes.

        They are for the file `WEIGHTS` or `EMA_WEIGHTS`, and were evaluated after a step (from 0).
        """
        name = engine.name_of(name)
        record = self._record() if is_main() else {}
        better = is_main() and self._is_better(results, record.get(name))
        if not distributed.gather(better)[0]:
            return
        file, evaluation = self.folder / name, {"step": step, "results": dict(results)}

        def save() -> None:
            with explain_os_errors(file):
                save_weights(state, file, self.config, engine.adapters, evaluation)
            self._write(record | {name: evaluation})

        state = engine.full_precision_state()
        run_on_main_rank(save)
        logger.info("best %s so far: %.5g, kept in %s", self.metric, results[self.metric], file)

    def _is_better(self, results: Mapping[str, float], current: Mapping[str, Any] | None) -> bool:
        before = rank_results(current["results"] if current else {}, self.metric)
        return math.isfinite(results[self.metric]) and rank_results(results, self.metric) >= before

    def _record(self) -> dict[str, Any]:
        file = self.folder / RECORD
        try:
            record: dict[str, Any] = json.loads(file.read_text("utf-8"))
            return {name: entry for name, entry in record.items() if entry["results"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%s): the next weights are the best", file, error)
        return {}

    def _write(self, record: Mapping[str, Any]) -> None:
        write_text(self.folder / RECORD, json.dumps(record, indent=2))

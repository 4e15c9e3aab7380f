"""Checkpoints of a run: complete or not there.

`checkpoints/step_00001000/` holds the weights and their moving average as `model.safetensors` and
`model_ema.safetensors` (float32, official names; with adapters the folders `adapter/` and
`adapter_ema/`, and nothing of what is frozen), the optimizer's state by the names of parameters,
with ZeRO a part of every process, `run.json`, and `COMPLETE`, which lists all files with their
sizes and digests. It is written in a folder of another name, flushed to the disk and then renamed.
What cannot be read is never removed. DeepSpeed's own form is not used: for other processes it
unpickles what a file holds.
"""

import itertools
import json
import logging
import shutil
import uuid
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from eva_backbone.checkpoints.reading import read_torch_file
from eva_backbone.checkpoints.run_folders import CHECKPOINTS, complete_checkpoints
from eva_data.saving import explain_os_errors, flush, make_folder, remove_unfinished, write_text
from eva_engine import distributed
from eva_engine.checkpoints.files import (
    EMA_WEIGHTS,
    RUN,
    WEIGHTS,
    FolderStore,
    find_damage,
    mark_complete,
    read_run,
    save_weights,
)
from eva_engine.config import MESSAGES, METRICS, Recipe, RunConfig, require
from eva_engine.steps.engine import MovingAverage, TrainingEngine
from eva_report.terminal import show
from eva_runs.checkpoint_store import find_newest
from eva_runs.output_folder import require_folder
from eva_runs.processes import is_main, run_on_all_ranks, run_on_main_rank
from eva_runs.run_logs import read_log

logger = logging.getLogger(__name__)

_OPTIMIZER = "optimizer_{:05d}.pt"
_PREFIX, _TEMPORARY, _REMOVED, _DAMAGED = "step_", ".writing_", ".removing_", "damaged_"
_SEEN = ".seen_by_all_"


class RunCheckpoints:
    """The checkpoints in the output folder of a run, which all processes see; some are kept."""

    def __init__(self, output: Path, *, keep: int, config: Mapping[str, Any] | None = None) -> None:
        self.folder = output / CHECKPOINTS
        self.keep, self.config = keep, config
        self._damaged: set[Path] = set()  # by their content, which `complete` does not read
        self._final: Path | None = None  # the checkpoint that is being written
        self._files = FolderStore()
        self._weights: dict[str, dict[str, Tensor]] = {}  # written over

    def complete(self) -> list[Path]:
        """List the folders of all complete checkpoints, oldest first."""
        checkpoints = complete_checkpoints(self.folder.parent)
        return [path for path in checkpoints if path not in self._damaged]

    def newest(self) -> Path | None:
        """Find the newest checkpoint with its files as written; the same on all processes.

        Others are passed over with a warning, and left as they are.

        Raises:
            ValueError: If a process does not see the main process's folder, or if there are
                checkpoints and none of them is undamaged.
        """
        self._check_that_all_see_it()
        part = {"part": distributed.rank(), "parts": distributed.world_size()}

        def find_damage_together(folder: Path) -> str | None:
            damage = next(filter(None, distributed.gather(find_damage(folder, **part))), None)
            if damage:
                self._damaged.add(folder)
            return damage

        candidates = sorted(self.folder.glob(f"{_PREFIX}*"), reverse=True) if is_main() else []
        return find_newest(distributed.gather(candidates)[0], find_damage_together)

    def _check_that_all_see_it(self) -> None:
        def touch() -> Path:
            make_folder(self.folder)
            remove_unfinished(self.folder)
            file = self.folder / f"{_SEEN}{uuid.uuid4().hex}"
            file.touch()
            return file

        file = run_on_main_rank(touch)
        seen = distributed.gather(file.exists())
        if is_main():
            file.unlink()
        blind = [number for number, sees in enumerate(seen) if not sees]
        if blind:
            raise ValueError(
                f"processes {blind} do not see {self.folder}, which the first process made: put "
                "the output on a file system that all machines share"
            )

    def begin_save(
        self, engine: TrainingEngine, average: MovingAverage | None, record: Mapping[str, Any]
    ) -> None:
        """Copy what a checkpoint has, with a record that has the `step`, and begin to write it.

        The same call on all processes, with none begun. `finish_save` makes it visible.

        Raises:
            OSError: If its folder cannot be made.
        """
        final = self.folder / f"{_PREFIX}{record['step']:08d}"
        temporary = self.folder / f"{_TEMPORARY}{final.name}"

        def begin() -> None:
            require_folder(self.folder)
            for kind in (_TEMPORARY, _REMOVED):
                for rest in self.folder.glob(f"{kind}*"):
                    shutil.rmtree(rest, ignore_errors=True)
            with explain_os_errors(temporary):
                temporary.mkdir(parents=True)

        run_on_main_rank(begin)
        files = self._files
        files.begin(temporary)
        if is_main() or engine.zero_stage:  # without ZeRO all have the same
            part = _OPTIMIZER.format(distributed.rank())
            files.save_state(temporary / part, engine.optimizer_state())
        engine.share_buffers()
        self._write_weights(engine, WEIGHTS)
        if average is not None:
            with average.applied():
                self._write_weights(engine, EMA_WEIGHTS)
        if is_main():
            content = json.dumps(record, indent=2)
            files.add(temporary / RUN, lambda file: write_text(file, content))
        self._final = final

    def _write_weights(self, engine: TrainingEngine, name: str) -> None:
        state, adapters = engine.full_precision_state(self._weights.get(name)), engine.adapters
        self._weights[name] = state
        if is_main():
            file = self._files.folder / engine.name_of(name)
            self._files.add(file, lambda file: save_weights(state, file, self.config, adapters))

    def finish_save(self, *, wait: bool) -> Path | None:
        """Publish the checkpoint that was begun once all processes have written it.

        The same call on all processes.

        Raises:
            OSError: If the disk is full, for example; earlier checkpoints are as they were.
        """
        if self._final is None:
            return None
        files, final = self._files, self._final
        if not (wait or all(distributed.gather(files.writer.is_done))):
            return None
        self._final = None
        try:
            run_on_all_ranks(files.writer.wait)
            digests = ChainMap(*distributed.gather(files.digests))
            run_on_main_rank(lambda: mark_complete(files.folder, digests))
        except Exception:
            if is_main():
                shutil.rmtree(files.folder, ignore_errors=True)
            raise
        run_on_main_rank(lambda: self._publish(files.folder, final))
        return final

    def _publish(self, temporary: Path, final: Path) -> None:
        with explain_os_errors(final):
            if final.exists():
                final.rename(_free(final.with_name(_DAMAGED + final.name)))
            temporary.rename(final)
            self._damaged.discard(final)
            flush(self.folder)
            for old in self.complete()[: -self.keep]:
                # a removal that is cut short leaves no checkpoint; the next save goes on with it
                removed = old.rename(_free(old.with_name(_REMOVED + old.name)))
                shutil.rmtree(removed, ignore_errors=True)


def _free(path: Path) -> Path:
    """Return the path, or the first one with a number behind it that is not taken."""
    others = (path.with_name(f"{path.name}_{number}") for number in itertools.count(2))
    return next(
        candidate for candidate in itertools.chain([path], others) if not candidate.exists()
    )


def restore(folder: Path, engine: TrainingEngine, average: MovingAverage | None) -> None:
    """Set engine and moving average from a complete checkpoint; the same call on all processes.

    Another number of processes, or another ZeRO stage, continues as well.

    Raises:
        ValueError: If the run has another precision, optimizer or model, trains what was frozen, or
            has an average that the saved one lacks; if a file is damaged or holds code.
    """
    saved = read_run(folder)
    now: list[tuple[str, Any]] = [
        ("precision", engine.precision),
        ("lora", engine.adapters and engine.adapters.identity),
    ]
    if "optimizer" in saved:  # of which older checkpoints say nothing
        now.append(("optimizer", engine.optimizer_name))
    for name, value in now:
        require(
            saved.get(name) == value,
            f"{folder} was saved with {name}={saved.get(name)} and cannot continue with {value}: "
            f"go back to it, or begin a new run from {folder} in another output",
        )
    averages = folder / engine.name_of(EMA_WEIGHTS)
    require(
        average is None or averages.exists(),
        f"{folder.name} has no moving average: set ema_decay=0 as when it was saved",
    )
    parts = [read_torch_file(file, mapped=True) for file in sorted(folder.glob("optimizer_*.pt"))]
    try:
        load_weights(folder / engine.name_of(WEIGHTS), engine)
        engine.load_optimizer_state(*parts)
        if average is not None:
            average.load(_read_weights(averages, engine))
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder} has the state of another model, or is damaged: choose another output, or "
            f"take another checkpoint ({type(error).__name__}: {error})"
        ) from error


def load_weights(file: Path, engine: TrainingEngine) -> None:
    """Set the engine's weights from those that a run has kept; the same call on all processes."""
    engine.load_weights(_read_weights(file, engine))


def _read_weights(file: Path, engine: TrainingEngine) -> dict[str, Tensor]:
    """Read tensors by their names in the model."""
    tensors = load_file(file)
    return engine.adapters.rename(tensors) if engine.adapters else tensors


def find_checkpoint(checkpoints: RunCheckpoints, run: RunConfig, size: int) -> Path | None:
    """Find the newest undamaged checkpoint, after which a run continues; None for one that begins.

    The same on all processes. A run on data of a `size` that never saved may begin again: the first
    save, written in the background, is complete before the second one begins.

    Raises:
        ValueError: If there is one and the run is not to be continued, if all are damaged or of an
            earlier version, or if the log is of a run whose checkpoints are gone.
    """
    checkpoint = checkpoints.newest()
    if checkpoint and not run.resume:
        raise ValueError(MESSAGES.used(run.output, checkpoint=checkpoint.name))
    if checkpoint and not any(checkpoint.glob("optimizer_*.pt")):
        raise ValueError(
            f"{checkpoint} has no {_OPTIMIZER.format(0)}: an earlier version has saved it, which "
            "this one cannot continue; begin another run from its weights in another --output"
        )
    if checkpoint:
        return checkpoint
    reached, samples = run_on_main_rank(lambda: _reached(run.output))
    every = run.checkpoint_every  # steps, or 0 for an epoch, in which steps may be of another size
    has_saved = reached > 2 * every if every else samples > 2 * size
    if has_saved or (reached and not run.resume):
        again = "put one back" if has_saved else "begin it again with --resume"
        raise ValueError(
            f"{run.output} has a run that reached step {reached}, but none of its checkpoints: "
            f"{again}, or choose another --output"
        )
    if run.resume and is_main():
        show(MESSAGES.nothing_to_resume(run.output))
    return None


def _reached(folder: Path) -> tuple[int, int]:
    """Read from the log of a run how many steps, and samples, it has done."""
    lines = read_log(folder / METRICS)
    return max(((line["step"] + 1, line.get("samples") or 0) for line in lines), default=(0, 0))


def mention_changes(saved: Mapping[str, Any], now: Mapping[str, Any], config: Recipe) -> None:
    """Mention what differs between the records of a checkpoint and of this start, where it may."""
    name = "samples_of_data"
    if saved[name] != now[name]:
        change = f"{name}={saved[name]}, now {now[name]}"
        logger.warning("the run that continues had %s: the order of the data changes", change)
    if config.run.seed != now["seed"]:
        logger.warning("seed=%d has no effect: the run began with %d", config.run.seed, now["seed"])
    optimizer, ends = config.optimizer.name, (saved, now)
    whole = optimizer == "deepspeed_lamb"  # ZeRO's groups have norms of all processes
    parts = {end["zero_stage"] and (whole or end["processes"]) for end in ends}
    if optimizer.endswith("lamb") and len(parts) > 1:
        logger.warning("LAMB's steps change: its norms are of other parts of the weights")

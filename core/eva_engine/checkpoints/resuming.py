"""Where a run begins: after a checkpoint, or at the first step of an unused folder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_engine import distributed
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_engine.config import SAYS, RunConfig
from eva_engine.run_log import last_logged_step
from eva_report.terminal import SHOWN

logger = logging.getLogger(__name__)


def find_checkpoint(checkpoints: RunCheckpoints, run: RunConfig) -> Path | None:
    """Find the checkpoint after which a run continues; the same on all processes.

    Args:
        checkpoints: Checkpoints of the output folder.
        run: Settings of the run.

    Returns:
        The newest undamaged one; None if there is none.

    Raises:
        ValueError: If there is one and the run is not to be continued, or if all are damaged.
    """
    checkpoint = checkpoints.newest()
    if checkpoint and not run.resume:
        raise ValueError(SAYS.used(run.output, checkpoint=checkpoint.name))
    return checkpoint


def check_that_nothing_was_here(
    checkpoints: RunCheckpoints, run: RunConfig, *, first_save: int
) -> None:
    """Refuse to begin where another run was; only one that never saved may begin again.

    Args:
        checkpoints: Checkpoints of the output folder, none of which is complete.
        run: Settings of the run.
        first_save: Steps after which a run saves for the first time.

    Raises:
        ValueError: On all processes, naming the folder and what is in it.
    """
    main = distributed.rank() == 0
    found = (last_logged_step(run.output), checkpoints.traces()) if main else (-1, False)
    last, traces = distributed.gather(found)[0]
    if traces or last >= first_save:
        raise ValueError(
            f"{run.output} has a run that reached step {last + 1}, but none of its checkpoints: "
            f"put one back, or begin again in another {SAYS.output}"
        )
    if last >= 0 and not run.resume:
        raise ValueError(
            f"{run.output} has the log of a run that reached step {last + 1} without a checkpoint: "
            f"begin it again with {SAYS.resume}, or choose another {SAYS.output}"
        )
    if run.resume and main:
        logger.info("%s", SAYS.nothing_to_resume(run.output), extra=SHOWN)


def mention_changes(saved: Mapping[str, Any], now: Mapping[str, Any], run: RunConfig) -> None:
    """Mention what differs from the run that continues, where it may.

    Args:
        saved: Record of the checkpoint.
        now: Record of this start.
        run: Settings of the run.
    """
    for name in ("step_batch", "samples_of_data"):
        if name in saved and saved[name] != now[name]:
            logger.warning(
                "the run that continues had %s=%s, now %s: the order of the data changes",
                *(name, saved[name], now[name]),
            )
    if run.seed != now["seed"]:
        logger.warning("seed=%d has no effect: the run began with %d", run.seed, now["seed"])

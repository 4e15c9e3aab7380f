"""Steps whose loss or gradients are not finite: written down, and skipped or the end of the run."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence

from eva_data.files import UnwritableError, write_text
from eva_engine import distributed
from eva_engine.checkpoints.files import WEIGHTS
from eva_engine.config import SAYS, RunConfig
from eva_engine.data.order import Batch, Samples, sample_id

logger = logging.getLogger(__name__)

_DUMP = "nonfinite.json"


class NonfiniteSteps:
    """Carries out `run.nonfinite`.

    Args:
        run: Settings of the run.
        samples: Training data, for the names in the message.
        seed: Seed of the run.
        in_a_row: Steps that were skipped up to now.

    Attributes:
        in_a_row: Steps that were skipped up to now; a step that is carried out sets it to 0.
    """

    def __init__(self, run: RunConfig, samples: Samples, *, seed: int, in_a_row: int) -> None:
        self.in_a_row = in_a_row
        self._run, self._samples, self._seed = run, samples, seed

    def meet(self, step: int, loss: float, batches: Sequence[Batch]) -> None:
        """Write down what led here, in `rankN_nonfinite.json`; return if the step may be skipped.

        Args:
            step: Number of the step, from 0.
            loss: Mean over all processes.
            batches: Batches of this process in the step.

        Raises:
            FloatingPointError: If it may not; on all processes alike.
        """
        rank, run = distributed.rank(), self._run
        items = [item for batch in batches for item in batch.items]
        file = run.output / f"rank{rank}_{_DUMP}"
        content = {
            "step": step,
            "loss": str(loss),
            "samples": [sample_id(self._samples, index) for _, index in items],
            "epoch_and_index": items,
            "seeds": [[self._seed, step, micro, rank] for micro in range(run.accumulate)],
        }
        with contextlib.suppress(UnwritableError):  # its subject matters more
            write_text(file, json.dumps(content, indent=1))
        self.in_a_row += 1
        what, found = f"The loss ({loss}) or a gradient", f"the samples in {file.name}"
        if run.nonfinite == "stop":
            skip = " (--run.nonfinite skip would go on)"
            raise FloatingPointError(SAYS.not_finite(what, step + 1, found) + skip)
        if self.in_a_row > run.max_skipped:
            what = f"For {self.in_a_row} steps in a row, the loss ({loss}) or a gradient"
            raise FloatingPointError(SAYS.not_finite(what, step + 1, found))
        logger.warning(
            "%s became infinite or NaN at step %d, which is skipped: see %s",
            *(what, step + 1, file.name),
        )


@contextlib.contextmanager
def smallest_loss_scale_explained(step: int) -> Iterator[None]:
    """Report DeepSpeed's error about its smallest loss scale in one sentence.

    Args:
        step: Number of the step, from 0.

    Raises:
        FloatingPointError: If the loss scale of fp16 is at its minimum and the step overflows.
    """
    try:
        yield
    except Exception as error:
        if "loss scale already at minimum" not in str(error):
            raise
        raise FloatingPointError(
            f"the loss scale of fp16 is at its minimum and step {step + 1} still overflows: the "
            f"run has diverged; begin a new run from {WEIGHTS} of an earlier checkpoint with a "
            "lower learning rate or precision=bf16"
        ) from error

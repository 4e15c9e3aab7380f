"""The forward and backward passes of one optimizer step, and steps that are not finite."""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from eva_data.saving import UnwritableError, write_text
from eva_engine import distributed
from eva_engine.config import MESSAGES, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_runs.data_order import (
    Batch,
    SampleDataset,
    next_batch,
    sample_id,
    seed_everything,
    to_device,
)
from eva_runs.errors import NonFiniteError
from eva_runs.step_guard import StepGuard

logger = logging.getLogger(__name__)

_RECORD, _MOST_FILES = "rank{}_nonfinite.json", 16
StepFn = Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, Tensor]]]


class MicroBatches:
    """The micro-batches of a step of this process; to be iterated over as often as is needed.

    Each is taken from the loader when it is first needed, and copied to the device when it has its
    turn. Then the global generators are seeded for it by the seeds of the run and the step and by
    its place in the step, so that stochastic depth and dropout are the same in each pass. A place
    has the numbers that it had with the processes that the run `began_with`.

    Attributes:
        taken: Batches that were taken from the loader.
        seeds: Numbers that the generators are seeded by, of each micro-batch.
    """

    def __init__(
        self,
        stream: Iterator[Batch],
        *,
        count: int,
        device: torch.device,
        seeds: tuple[int, int],
        began_with: int = 1,
    ) -> None:
        self.taken: list[Batch] = []
        self._stream, self._count, self._device = stream, count, device
        places = range(
            distributed.rank(), count * distributed.world_size(), distributed.world_size()
        )
        self.seeds = [(*seeds, *divmod(position, began_with)) for position in places]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for micro in range(self._count):
            if micro == len(self.taken):
                self.taken.append(next_batch(self._stream))
            seed_everything(*self.seeds[micro], purpose="step")
            yield to_device(self.taken[micro].data, self._device)


@runtime_checkable
class StepWithBeginning(Protocol):
    """A step function that sees all micro-batches of a step before it gets them one by one.

    The loop calls `begin` once in each step, on all processes, and then the function itself for
    each micro-batch, in their order. What `begin` computes of a micro-batch, iterating over
    `micro_batches`, has the same random numbers as the later call with it.
    """

    def begin(self, model: nn.Module, micro_batches: MicroBatches) -> None:
        """Prepare a step of DeepSpeed's engine; a pass holds one micro-batch at a time."""

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute loss and metrics of a micro-batch."""


def forward_and_backward(
    engine: TrainingEngine, step_fn: StepFn, micro_batches: MicroBatches
) -> dict[str, Tensor]:
    """Add up the gradients of a step; return the sums of loss and metrics in double precision."""
    if isinstance(step_fn, StepWithBeginning):
        step_fn.begin(engine.engine, micro_batches)
    sums: dict[str, Tensor] = {}
    for number, data in enumerate(micro_batches, start=1):
        last = number == len(micro_batches)
        engine.engine.set_gradient_accumulation_boundary(last)
        loss, metrics = step_fn(engine.engine, data)
        for name, value in {**metrics, "loss": loss}.items():
            sums[name] = sums.get(name, 0) + value.detach().double()
        engine.backward(loss, last=last)
    return sums


def reduce_step(
    sums: Mapping[str, Tensor], batches: Sequence[Batch], guard: StepGuard
) -> tuple[dict[str, float], bool, bool]:
    """Average over processes and micro-batches; the same call on all processes.

    Returns:
        The averages, whether all losses are finite, and whether those of this process are.
    """
    names = sorted(sums)
    own = torch.stack([sums[name].reshape(()) for name in names]).tolist()
    unreadable = {name: why for batch in batches for name, why in batch.unreadable.items()}
    own_is_finite = math.isfinite(own[names.index("loss")])
    finite, totals = guard.agree(finite=own_is_finite, unreadable=unreadable, sums=own)
    count = distributed.world_size() * len(batches)
    values = {name: total / count for name, total in zip(names, totals, strict=True)}
    return values, finite, own_is_finite


class NonfiniteSteps:
    """Carries out `run.nonfinite`.

    Attributes:
        in_a_row: Steps that were skipped up to now; a step that is carried out sets it to 0.
    """

    def __init__(self, run: RunConfig, samples: SampleDataset, *, in_a_row: int) -> None:
        self.in_a_row = in_a_row
        self._run, self._samples = run, samples

    def meet(
        self, step: int, loss: float, micro_batches: MicroBatches, *, own_is_finite: bool
    ) -> None:
        """Write down what led to a step (from 0); return if it may be skipped.

        The processes whose own loss is not finite are named, or all for a gradient, which is known
        as their average.

        Raises:
            NonFiniteError: If it may not; on all processes alike.
        """
        run, verdicts = self._run, distributed.gather(own_is_finite)
        items = [draw.key for batch in micro_batches.taken for draw in batch.draws]
        wrong = [rank for rank, is_finite in enumerate(verdicts) if not is_finite]
        ranks = (wrong or range(len(verdicts)))[:_MOST_FILES]
        files = ", ".join(map(_RECORD.format, ranks))
        file = run.output / _RECORD.format(distributed.rank())
        names = [sample_id(self._samples, index) for _, index in items]
        content = {"step": step, "loss": str(loss), "samples": names, "epoch_and_index": items}
        content["seeds"] = micro_batches.seeds
        with contextlib.suppress(UnwritableError):  # its subject matters more
            write_text(file, json.dumps(content, indent=1))
        self.in_a_row += 1
        steps = f"For {self.in_a_row} steps in a row, the" if self.in_a_row > 1 else "The"
        cause = f"{steps} loss ({loss}) or a gradient"
        if run.nonfinite == "stop" or self.in_a_row > run.max_skipped:
            more = " (--run.nonfinite skip would go on)" if run.nonfinite == "stop" else ""
            samples = f"the samples in {files}"
            raise NonFiniteError(MESSAGES.not_finite(cause, step + 1, samples) + more)
        logger.warning(
            "%s became infinite or NaN at step %d, which is skipped: see %s",
            *(cause, step + 1, files),
        )

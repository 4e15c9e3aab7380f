"""What the processes of a run agree on before the step of its optimizer."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import nn

from eva_runs import processes
from eva_runs.errors import NonFiniteError, TooManyUnreadableError
from eva_runs.interruption import StopSignal
from eva_runs.run_logs import RunMessages

logger = logging.getLogger(__name__)

_SHOWN = 10  # names in a message


class BadSamples:
    """Names of the samples of a run that cannot be read, each of which counts once.

    `setting` is what the user calls the allowed number of them, `done` what is done with one.
    """

    def __init__(
        self,
        allowed: int,
        names: Iterable[str] = (),
        *,
        setting: str = "max_bad_samples",
        done: str = "replaced a sample",
    ) -> None:
        self.allowed, self.names = allowed, set(names)
        self.setting, self.done = setting, done

    def add(self, unreadable: Mapping[str, str]) -> None:
        """Note samples of all processes, name -> why or "", and log those that are new.

        Raises:
            TooManyUnreadableError: If there are more than allowed.
        """
        for name in sorted(unreadable.keys() - self.names):
            line = ": ".join(filter(None, (name, unreadable[name])))
            logger.warning("%s that cannot be read: %s", self.done, line)
        self.names |= unreadable.keys()
        if len(self.names) > self.allowed:
            raise TooManyUnreadableError(
                f"{len(self.names)} samples could not be read, {self.setting} is {self.allowed}: "
                f"{', '.join(sorted(self.names)[:_SHOWN])}; the log says why"
            )


class StepGuard:
    """Agreement of all processes on each step, in one reduction before the optimizer's.

    Attributes:
        stopping: Whether any process was asked to stop, as of the last agreement.
        bad_samples: Samples that could not be read.
    """

    def __init__(
        self,
        messages: RunMessages,
        stop: StopSignal,
        device: torch.device | str,
        bad_samples: BadSamples | None = None,
    ) -> None:
        self.messages, self.stop, self.device = messages, stop, device
        self.bad_samples = bad_samples or BadSamples(0)
        self.stopping = False

    def agree(
        self,
        *,
        finite: bool = True,
        error: Exception | None = None,
        unreadable: Mapping[str, str] | None = None,
        sums: Sequence[float] = (),
    ) -> tuple[bool, list[float]]:
        """Share what this process has met in a step; the same call on all processes.

        Args:
            finite: Whether its losses are.
            error: What it fails with.
            unreadable: Samples that it replaced, name -> why.
            sums: Numbers to be added up over the processes.

        Returns:
            Whether the losses of all are finite, and the sums.

        Raises:
            Exception: The error of this process; on the others an `OtherProcessError`.
            TooManyUnreadableError: On all processes.
        """
        flags = self.stop.requested, not finite, error is not None, bool(unreadable)
        shared = processes.sum_over_ranks([*sums, *map(float, flags)], self.device)
        *totals, stops, not_finite, failed, replaced = shared
        self.stopping = stops > 0
        if replaced:
            parts = processes.gather(dict(unreadable or {}))
            self.bad_samples.add({name: why for part in parts for name, why in part.items()})
        if failed:
            processes.raise_on_all_ranks(error)
        return not not_finite, totals

    def refuse(self, quantity: str, step: int, culprit: str | None) -> NoReturn:
        """End the run on all processes because of a number at a step, with what each names."""
        culprits = enumerate(processes.gather(culprit))
        listed = "; ".join(f"process {rank}: {names}" for rank, names in culprits if names)
        raise NonFiniteError(self.messages.not_finite(quantity, step, listed))


def gradients_are_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Check gradients, which are averages, the same on all processes."""
    gradients: list[Any] = [part.grad for part in parameters if part.grad is not None]
    # largest absolute values: the sum of squares could overflow where the values do not
    return bool(torch.nn.utils.get_total_norm(gradients, float("inf")).isfinite())

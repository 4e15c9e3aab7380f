"""Samples that an evaluation leaves out because they cannot be read, and how many may be."""

import logging
from collections.abc import Sequence

from eva_data.files import printable
from eva_engine.data.order import TooManyBadSamplesError

logger = logging.getLogger(__name__)


class LeftOutSamples:
    """Names each sample once in the log of a run, and ends it if there are too many.

    Args:
        most: Number of samples that an evaluation may leave out, `run.max_bad_samples`.
    """

    def __init__(self, most: int) -> None:
        self._most, self._mentioned = most, set[str]()

    def mention(self, left_out: Sequence[str], *, of: int) -> None:
        """Name samples.

        Args:
            left_out: A sentence for each.
            of: Number of all samples.

        Raises:
            TooManyBadSamplesError: If more than allowed were left out.
        """
        for why in left_out:
            if why not in self._mentioned:
                logger.warning("left a sample out of the validation: %s", why)
        self._mentioned |= set(left_out)
        if len(left_out) > self._most:
            raise TooManyBadSamplesError(
                f"{len(left_out)} of {of} validation samples could not be read, "
                f"max_bad_samples is {self._most}; the log names them"
            )


def require_few(left_out: Sequence[str], *, of: str, total: int, most: int) -> None:
    """Refuse an evaluation of a command that leaves out more samples than are allowed, or all.

    Args:
        left_out: A sentence for each.
        of: Name of the samples: "samples of val", "images".
        total: Number of all samples.
        most: Number that may be left out, `--max-bad-samples`.

    Raises:
        ValueError: If there are more.
    """
    if left_out and (len(left_out) > most or len(left_out) == total):
        raise ValueError(
            f"{len(left_out)} of {total} {of} cannot be read, and --max-bad-samples is {most}: "
            f"{printable(left_out[0])}"
        )

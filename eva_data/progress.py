"""Progress of long work: a bar on a terminal, one line a minute elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")

LINE_SECONDS = 60.0


class ProgressBar:
    """A bar on standard error if that is a terminal, and a line a minute if it is not.

    Messages of a log go above it: `ProgressBar.write`.

    Args:
        total: Number of steps; None where it is not known.
        what: Title, such as "training".
        unit: Name of a step.
        start: Steps that are done already.
    """

    def __init__(self, total: int | None, *, what: str, unit: str = "it", start: int = 0) -> None:
        from tqdm import tqdm

        self.total, self.done = total, start
        self._what, self._unit, self._start = what, unit, start
        self._began = self._said = time.monotonic()
        self._note = ""
        self._bar: Any = None
        if is_terminal(sys.stderr):
            self._bar = tqdm(
                total=total,
                initial=start,
                desc=what,
                unit=unit,
                dynamic_ncols=True,
                mininterval=0.5,
                leave=None,  # a bar below another one, as of an evaluation, goes when it is done
                file=sys.stderr,
            )

    def update(self, steps: int = 1, **note: str) -> None:
        """Count steps.

        Args:
            steps: Steps that are done.
            **note: Names and values to show, such as `loss="0.71"`.
        """
        self.done += steps
        if note:
            self._note = ", ".join(f"{name} {value}" for name, value in note.items())
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self._say_line()

    def close(self) -> None:
        """End the bar; what is shown stays."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def write(text: str) -> None:
        """Write a line to standard error, above a bar if there is one."""
        from tqdm import tqdm

        if sys.stderr is not None:
            tqdm.write(text, file=sys.stderr)

    def _say_line(self) -> None:
        elapsed = self._said - self._began
        of = "" if self.total is None else f"/{self.total}"
        parts = [f"{self._what}: {self.done}{of} {self._unit}", self._note]
        if self.total is not None:
            left = elapsed / max(1, self.done - self._start) * (self.total - self.done)
            parts.append(f"{_clock(left)} left")
        self.write(", ".join(part for part in parts if part))


def progress(items: Iterable[Item], *, total: int, what: str, unit: str = "it") -> Iterator[Item]:
    """Show progress while items are iterated.

    Args:
        items: The items.
        total: Number of items.
        what: Their name beside the bar.
        unit: Name of an item.

    Yields:
        The same items.
    """
    with ProgressBar(total, what=what, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal."""
    return stream is not None and stream.isatty()


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"

"""Progress of long work: a bar on a terminal, one line a minute elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

Item = TypeVar("Item")

LINE_SECONDS = 60.0


class ProgressBar:
    """A bar on standard error if that is a terminal, and a line a minute if it is not.

    Work that takes less than a minute says nothing where there is no terminal. Messages of a log go
    above the bar: `ProgressBar.write`. `total` steps (None where it is not known) have a title and
    a unit; `start` of them are done already. The bar stays at its end if `leave`; None lets one
    inside another go.
    """

    def __init__(
        self,
        total: int | None,
        *,
        title: str,
        unit: str = "it",
        start: int = 0,
        leave: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.done = total, start
        self._what, self._unit, self._start = title, unit, start
        self._clock = clock
        self._began = self._said = clock()
        self._said_at, self._note = -1, ""
        self._bar: Any = None
        if is_terminal(sys.stderr):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=start,
                desc=title,
                unit=unit,
                leave=leave,
                dynamic_ncols=True,
                mininterval=0.5,
                file=sys.stderr,
            )

    def update(self, steps: int = 1, **note: str) -> None:
        """Count steps, with names and values to show, such as `loss="0.71"`."""
        self.done += steps
        if note:
            self._note = ", ".join(f"{name} {value}" for name, value in note.items())
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):  # of a terminal that was closed
                self._bar.set_postfix_str(self._note, refresh=False)
                self._bar.update(steps)
        elif self._clock() - self._said >= LINE_SECONDS:
            self._say_line()

    def close(self) -> None:
        """End the bar; after lines on the way, one says where it ended."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()
        elif 0 <= self._said_at < self.done:
            self._say_line()
        self._said_at = -1  # a second call says nothing

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def write(line: str) -> None:
        """Write a line to standard error, above a bar if there is one."""
        if sys.stderr is not None:
            with above_bars(sys.stderr), contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{line}\n")

    def _say_line(self) -> None:
        self._said, self._said_at = self._clock(), self.done
        elapsed = self._said - self._began
        of = "" if self.total is None else f"/{self.total:,}"
        parts = [f"{self._what}: {self.done:,}{of} {self._unit}", self._note]
        if self.total is not None and self.done < self.total:
            left = elapsed / max(1, self.done - self._start) * (self.total - self.done)
            parts.append(f"{_clock(left)} left")
        else:
            parts.append(f"{_clock(elapsed)} passed")
        self.write(", ".join(part for part in parts if part))


def progress(
    items: Iterable[Item], *, total: int | None, title: str, unit: str = "it"
) -> Iterator[Item]:
    """Yield items, and show progress meanwhile; see `ProgressBar`."""
    with ProgressBar(total, title=title, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()


@contextlib.contextmanager
def above_bars(stream: TextIO) -> Iterator[None]:
    """Take the bars off a terminal while something is written to it, and draw them again below."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if tqdm is None or not is_terminal(stream):
        yield
        return
    with tqdm.external_write_mode(file=stream):
        yield


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; one that is closed is not."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"

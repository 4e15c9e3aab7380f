"""Progress of long work: a bar on a terminal, one line a minute elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

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
        self._title, self._unit, self._start, self._note = title, unit, start, ""
        self._clock = clock
        self._began = self._shown = clock()
        self._shown_at = -1  # steps of the last line
        self._bar: Any = None
        if is_terminal(sys.stderr):
            about: dict[str, Any] = {"total": total, "initial": start, "desc": title, "unit": unit}
            shape = {"leave": leave, "dynamic_ncols": True, "mininterval": 0.5}
            self._bar = tqdm(**about, **shape, file=sys.stderr)

    def update(self, steps: int = 1, **note: str) -> None:
        """Count steps, with names and values to show, such as `loss="0.71"`."""
        self.done += steps
        if note:
            self._note = ", ".join(f"{name} {value}" for name, value in note.items())
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):  # of a terminal that was closed
                self._bar.set_postfix_str(self._note, refresh=False)
                self._bar.update(steps)
        elif self._clock() - self._shown >= LINE_SECONDS:
            self._write_line()

    def close(self) -> None:
        """End the bar; after lines on the way, one says where it ended."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()
        elif 0 <= self._shown_at < self.done:
            self._write_line()
        self._shown_at = -1  # a second call says nothing

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

    def _write_line(self) -> None:
        self._shown, self._shown_at = self._clock(), self.done
        seconds, end = self._shown - self._began, "passed"
        if self.total is not None and self.done < self.total:
            seconds *= (self.total - self.done) / max(1, self.done - self._start)
            end = "left"
        of = "" if self.total is None else f"/{self.total:,}"
        hours, rest = divmod(round(seconds), 3600)
        time_text = f"{hours}:{rest // 60:02d}:{rest % 60:02d} {end}"
        parts = [f"{self._title}: {self.done:,}{of} {self._unit}", self._note, time_text]
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

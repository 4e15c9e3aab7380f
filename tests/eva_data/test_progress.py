"""Bars on a terminal, a line a minute elsewhere, and terminals that are closed."""

import io
import sys

import pytest

from eva_data.progress import ProgressBar


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def stderr_to(monkeypatch):
    """Function: standard error becomes a stream, and standard output too if that is a terminal."""

    def replace(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        if isinstance(stream, Terminal):
            monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return replace


def test_off_a_terminal_there_is_a_line_a_minute(stderr_to):
    file = stderr_to(io.StringIO())
    clock = Clock()
    with ProgressBar(1000, title="training", start=100, clock=clock) as bar:
        for _ in range(450):
            clock.seconds += 0.5
            bar.update(loss="0.71")
    assert file.getvalue().splitlines() == [
        "training: 220/1,000 it, loss 0.71, 0:06:30 left",
        "training: 340/1,000 it, loss 0.71, 0:05:30 left",
        "training: 460/1,000 it, loss 0.71, 0:04:30 left",
        "training: 550/1,000 it, loss 0.71, 0:03:45 left",  # where it stopped
    ]

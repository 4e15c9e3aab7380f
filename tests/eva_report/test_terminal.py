"""What reaches the terminal, and what the log alone has."""

import io
import logging
import sys

from eva_report.terminal import SHOWN, FileFormatter, TerminalHandler


def logger_to(terminal, monkeypatch):
    """Return a logger, and the stream of its file."""
    monkeypatch.setattr(sys, "stderr", terminal)
    logger = logging.Logger("eva_data.test")
    file = logging.StreamHandler(io.StringIO())
    file.setFormatter(FileFormatter())
    logger.addHandler(TerminalHandler())
    logger.addHandler(file)
    return logger, file.stream


def test_warnings_and_what_is_shown_reach_the_terminal(monkeypatch):
    terminal = io.StringIO()
    logger, file = logger_to(terminal, monkeypatch)
    logger.info("the recipe")
    logger.info("\x1b[32mweights\x1b[0m  %s", "eva_debug", extra=SHOWN)
    logger.warning("a file is missing")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("a traceback")
    assert terminal.getvalue() == "weights  eva_debug\nwarning: a file is missing\n"
    lines = file.getvalue()
    assert "\x1b" not in lines
    assert " I eva_data.test: the recipe\n" in lines
    assert " I eva_data.test: weights  eva_debug\n" in lines
    assert "ValueError: no" in lines


def test_a_closed_terminal_is_no_error(monkeypatch):
    terminal = io.StringIO()
    logger, file = logger_to(terminal, monkeypatch)
    terminal.close()
    logger.warning("a file is missing")
    assert "a file is missing" in file.getvalue()

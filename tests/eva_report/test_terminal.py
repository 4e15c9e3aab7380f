"""What reaches the terminal, and what the log alone has."""

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest

from eva_report.terminal import (
    SHOWN,
    WARNINGS,
    FileFormatter,
    TerminalHandler,
    closing_lines,
    line_of_warning,
    opening_lines,
)


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


@pytest.mark.parametrize(("file", "message", "shown"), [
    ("/home/me/heads.py", "my head is slow", "UserWarning: my head is slow (heads.py, line 7)"),
    ("/env/lib/python3.12/site-packages/timm/layers.py", "Importing from timm", ""),
    ("/home/me/eva/eva_backbone/vit.py", "torch.something is old", ""),
    ("/env/site-packages/torch/utils.py", "CUDA is too old", "CUDA is too old"),
    ("/home/me/eva_coins/heads.py", "slow", "UserWarning: slow (heads.py, line 7)"),
])  # fmt: skip
def test_a_warning_of_the_users_own_modules(file, message, shown):
    text = warnings.formatwarning(message, UserWarning, file, 7, "    warnings.warn(message)")
    assert line_of_warning(text) == shown


def test_a_warning_is_shown_once(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = TerminalHandler()
    for number in (1, 1, 2):
        text = warnings.formatwarning(f"head {number}", UserWarning, "heads.py", 7)
        record = logging.LogRecord(WARNINGS, logging.WARNING, "", 1, text, None, None)
        handler.handle(record)
    first = "warning: UserWarning: head 1 (heads.py, line 7)"
    assert terminal.getvalue().splitlines() == [first, first.replace("head 1", "head 2")]


def test_a_closed_terminal_is_no_error(monkeypatch):
    terminal = io.StringIO()
    logger, file = logger_to(terminal, monkeypatch)
    terminal.close()
    logger.warning("a file is missing")
    assert "a file is missing" in file.getvalue()


def test_lines_of_a_run():
    data = ["train: 2 images", "val: 1 image"]
    lines = opening_lines(task="train x", weights="eva_debug", data=data, output=Path("out"))
    assert lines[:4] == ["train x", "weights  eva_debug", *(f"data     {one}" for one in data)]
    assert lines[4].startswith("output   out ")
    weights = Path("out/model.pth")
    lines = closing_lines(scores="AP 41.2\nAP50 66.0", duration=125.4, weights=weights)
    assert lines == ["AP 41.2", "AP50 66.0", "took     2 min 5 s", "weights  out/model.pth"]
    assert closing_lines(scores="", duration=3 * 3600 + 60) == ["took     3 h 1 min"]

"""What reaches the terminal, and what the log of a process alone."""

import logging
import warnings

import pytest

from eva_detection.training import log
from eva_report.terminal import SHOWN

RED, PLAIN = "\x1b[31m", "\x1b[0m"


@pytest.fixture
def say_everything(own_logging, tmp_path, capfd):
    """Function: log of every kind as the process of a rank; returns its file and the terminal."""

    def run(rank):
        log.log_to(tmp_path, rank)
        logging.getLogger("detectron2.data.build").info("%stable%s", RED, PLAIN)
        logging.getLogger("eva_detection.x").info("of interest", extra=SHOWN)
        logging.getLogger("eva_data.x").warning("to act on")
        logging.getLogger("torch.fx").warning("of a library")
        logging.getLogger("eva_detection.x").error("failed", exc_info=ValueError("traceback"))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for file in ("/lib/site-packages/numpy/core.py", "/home/me/heads.py"):
                warnings.warn_explicit("of a module", UserWarning, file, 7)
        out, err = capfd.readouterr()
        file = tmp_path / (f"log.txt.rank{rank}" if rank else "log.txt")
        return file.read_text(encoding="utf-8"), out + err

    return run


@pytest.mark.parametrize("rank", [0, 1])
def test_the_log_has_everything_without_colours(say_everything, rank):
    text_of_log, terminal = say_everything(rank)
    for text in (
        "table",
        "of interest",
        "to act on",
        "of a library",
        "traceback",
        "heads.py:7",
    ):
        assert text_of_log.count(text) == 1, text
    assert text_of_log.count("of a module") == 2
    assert "\x1b" not in text_of_log
    shown = ["of interest", "warning: to act on"]
    shown.append("warning: UserWarning: of a module (heads.py, line 7)")
    assert terminal.splitlines() == (shown if rank == 0 else [])

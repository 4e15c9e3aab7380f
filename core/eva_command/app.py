"""Look at the results of models in the browser: drop images, compare models, see all runs.

    eva app output/mine                        # a page for what its model does
    eva app output/mine output/other           # also both on one image
    eva app eva_coco_seg.pth --recipe coco/cascade_mask_rcnn_vitdet_eva_g_1536
    eva app --folder output                    # scores and reports of all runs below
    eva app eva_clip_psz14.pt --folder photos  # search in images, an index or features of a batch
    EVA_APP_PASSWORD=... eva app output/mine --host 0.0.0.0     # for others; the user is eva

It is for this machine alone unless --host says otherwise. Ctrl-C or SIGTERM ends it, and deletes
what was uploaded.
"""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import OFFICIAL_FILES, require_known
from eva_command.label import TASKS, find_model
from eva_data.files import home_expanded
from eva_runs.commands import program, say
from eva_runs.options import SOURCES, add_download_option, command_parser, integer

PASSWORD = "EVA_APP_PASSWORD"
_TASKS = (*TASKS, "classification", "clip", "video")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("weights", nargs="*", metavar="RUN|WEIGHTS", help=f"models: {SOURCES}")
    add("--folder", type=home_expanded, metavar="DIR", help="folder of runs; what a CLIP searches")
    add("--recipe", help="of detectors and segmentors that are of no run")
    add("--task", choices=_TASKS, help="of weights that are neither of a run nor official")
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: that of the model\'s demo)')
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=integer(1, 65535), help="default: the first free one from 7860 on")
    text = f"of the user eva; better as {PASSWORD} in the environment, where no one sees it"
    add("--password", default=os.environ.get(PASSWORD), help=text)
    add("--mcp", action="store_true", help="also tools for agents, at /gradio_api/mcp/")
    add_download_option(parser)
    options = parser.parse_args(arguments)
    if options.host not in ("127.0.0.1", "localhost") and not options.password:
        parser.error(f"--host {options.host} lets others in: set {PASSWORD} or give --password")
    if not options.weights and options.folder is None:
        parser.error("name a run, weights or --folder")
    return options


def find_source(
    weights: str, recipe: str | None = None, task: str | None = None
) -> tuple[str, str, Path | None]:
    """Return the task, the weights, and the config of a detector or segmentor."""
    place = home_expanded(weights)
    for one in OFFICIAL_FILES:
        task = task or (one.task if place.name in (one.name, one.stem) else None)
    if not task and place.is_dir():
        task = describe_run(place).task
    if task in TASKS or not task:
        task, config = find_model(weights, recipe, task)
        return task, weights, config
    require_known(weights)
    if task not in _TASKS:
        raise ValueError(f"{weights}: there is no page for {task}")
    return task, weights, None


def describe_run(folder: Path) -> Any:
    """Describe a run by its folder."""
    from eva_command.publishing import read_run_folder

    return read_run_folder(folder, best=False, ema=False)


def _run(options: argparse.Namespace) -> int:
    from eva_app.models import Models, Source
    from eva_app.server import running

    given = options.recipe, options.task
    sources = [Source(*find_source(one, *given)) for one in options.weights]
    models = Models(sources, folder=options.folder, device=options.device)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in all threads, but for the wait
    with running(
        models, host=options.host, port=options.port, password=options.password, mcp=options.mcp,
        describe=describe_run,
    ) as address:  # fmt: skip
        say(f"{address} until Ctrl-C")
        signal.sigwait(ends)
    return 0


main = program(_parse, _run, name="eva app")

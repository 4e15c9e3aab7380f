"""The server of the app: pages by task, on this machine alone unless it is told otherwise.

A page is a function `build(models, names)` of a module, which makes its components and says by
`Models.answer` what follows their events, and by `Models.tool` what programs and agents may call.
`_PAGES` has its title, and the tasks of the models that it is for; `names` are theirs.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from eva_app import classification, compare, detection, runs
from eva_app.models import Models
from eva_app.uploads import MOST_BYTES, fetch_nothing, guarded, read_named

USER = "eva"
_WAITING = 32  # calls in the queue
_KEPT = 3600  # seconds that files of visitors are kept
_PAGES: Sequence[tuple[str, Sequence[str], Callable[[Models, Sequence[str]], None]]] = (
    ("Detect", ("detection", "mmdetection"), detection.build),
    ("Segment", ("segmentation",), detection.build),
    ("Classify", ("classification",), classification.build),
    ("CLIP", ("clip",), lambda *given: import_module("eva_app.clip").build(*given)),  # extras
    ("Video", ("video",), lambda *given: import_module("eva_app.video").build(*given)),
)
_FONTS = ["system-ui", "sans-serif"]
_THEME = gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=_FONTS).set(
    body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_300"
)
Describe = Callable[[Path], Any]


def build(models: Models, describe: Describe | None = None) -> gr.Blocks:
    """Build the pages that the models can fill, and that of runs, see `running`."""
    with gr.Blocks(title="EVA", analytics_enabled=False, delete_cache=(60, _KEPT)) as blocks:
        gr.Markdown("# EVA")
        for title, tasks, page in _PAGES:
            if names := models.names(*tasks):
                with gr.Tab(title):
                    page(models, names)
        every = models.names(*compare.TASKS)
        if len(every) > 1:
            with gr.Tab("Compare"):
                compare.build(models, every)
        if models.folder and describe:
            with gr.Tab("Runs"):
                runs.build(models, models.folder, describe)
        if every:
            _add_tool(models, every[0])
    return blocks.queue(max_size=_WAITING)


def _add_tool(models: Models, first: str) -> None:
    def predict(
        image: str, model: str = first, score: float = 0.5, tiles: bool = False
    ) -> list[dict[str, Any]]:
        """Look at an image with a detector, a segmentor or a classifier.

        Args:
            image: Path of a file below the folder of the app, or `data:` with the file in base64.
            model: Name of a model, such as the folder of its run.
            score: Least score of an object, 0.05 to 1, or probability of the pixels of a region.
            tiles: Look at a large image in tiles, where small objects are found.

        Returns:
            Objects, or the regions of classes: category (a name), score (0 to 1), bbox (x, y,
            width, height in pixels), segmentation (COCO's run-length code) where there is a mask.
            Of a classifier five classes and their probabilities, the most likely first.
        """
        seen = read_named(image, models.folder)
        if models.task(model) == "classification":
            top = classification.first_classes(models, model, seen)
            return [{"category": one.name, "score": one.probability} for one in top]
        found = detection.find_objects(models, model, seen, score, tiles=tiles)
        ids, names = zip(*detection.classes_of(models.load(model)).items(), strict=True)
        places = (one["category_id"] for one in found)
        return [{**one, "category_id": ids[at], "category": names[at]}
                for one, at in zip(found, places, strict=True)]  # fmt: skip

    models.tool(predict)


@contextlib.contextmanager
def running(
    models: Models, *, host: str = "127.0.0.1", port: int | None = None,
    password: str | None = None, mcp: bool = False, describe: Describe | None = None,
) -> Iterator[str]:  # fmt: skip
    """Serve the app in the background of a block, behind whose end nothing of its visitors stays.

    `describe` gives `task`, `step`, `steps`, `unit` and `scores` of a run by its folder: with it
    and a folder of `models` there is a page of runs.

    Yields:
        Its address.
    """
    temporary = tempfile.TemporaryDirectory(prefix="eva-app-", ignore_cleanup_errors=True)
    with temporary as folder:
        fetch_nothing()
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        blocks = build(models, describe)
        guard = Middleware(guarded, folder=Path(folder))
        try:
            _, address, _ = blocks.launch(
                share=False, quiet=True, ssr_mode=False, run_history=False, footer_links=[],
                enable_monitoring=False, pwa=False, prevent_thread_lock=True, mcp_server=mcp,
                server_name=host, server_port=port, auth=(USER, password) if password else None,
                max_file_size=MOST_BYTES, app_kwargs={"middleware": [guard]},
                theme=_THEME, i18n=gr.I18n(en={"common.upload": "Add files"}),
            )  # fmt: skip
            blocks.allowed_paths = models.served
            yield address
        finally:
            blocks.close(verbose=False)
            del os.environ["GRADIO_TEMP_DIR"]

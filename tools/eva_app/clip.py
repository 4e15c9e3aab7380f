"""The page of CLIP: search in the folder of the app, and classes of one's own."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import PIL.Image

from eva_app.examples import offer_examples, zero_shot_classes
from eva_app.models import Models
from eva_app.uploads import drop_images, read_images, show_images
from eva_contrastive.commands import has_features
from eva_contrastive.evaluation.prompts import find_templates
from eva_contrastive.inference.demo import entry, find_in_index, open_index, tile
from eva_contrastive.inference.features import files_of
from eva_contrastive.inference.finding import Hit, make_queries, search
from eva_contrastive.inference.library import Library, update
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES

_TOP, _SIDE = 18, 480  # hits; longest side of an image in px


def _open(models: Models, name: str, folder: Path) -> Callable[..., list[list[Hit]]]:
    """Open an index or features of a batch, or compute those of files that are new in a folder."""
    key = name, has_features(folder)
    if key[1]:
        if key not in models.libraries:
            cache = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
            models.libraries[key] = open_index(folder, name, cache)
        return partial(find_in_index, models.libraries[key])
    clip, files = models.load(name), files_of(folder, DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    versions = tuple((file, file.stat().st_mtime_ns) for file in files)
    library, before = models.libraries.get(key) or (Library(None, {}, width=clip.embed_dim), None)
    if versions != before:
        update(library, clip, files)
        models.libraries[key] = library, versions
    return partial(search, library, files)


def find_hits(
    models: Models, name: str, sentence: str, like: Sequence[str] | None = None, top: int = _TOP
) -> list[Hit]:
    """Find files as `eva clip demo search` does, by a sentence, by images or all together."""
    if models.folder is None:
        raise ValueError("there is nothing to search: start the app with --folder")
    texts, files = [sentence] if (sentence or "").strip() else [], [*map(Path, like or [])]
    if not texts and not files:
        return []
    clip = models.load(name)
    queries = make_queries(clip, texts=texts, like=files, together=True)
    return _open(models, name, models.folder)(queries, top=top)[0]


def _search(models: Models, sentence: str, like: Any, name: str) -> list[tuple[Any, str]]:
    shown, _ = [], read_images(like)  # of which not too many
    for hit in find_hits(models, name, sentence, like):
        image, heading, _ = tile(hit)
        image = image or PIL.Image.new("RGB", (_SIDE, _SIDE))
        image.thumbnail((_SIDE, _SIDE))
        shown.append((image, f"{heading}  {Path(hit.file).name}"))
    return shown


def name_classes(models: Models, files: Any, names: str, name: str) -> dict[str, float] | None:
    """Give the probabilities of classes, one a line, as `eva batch zero-shot` does."""
    classes = [*dict.fromkeys(line.strip() for line in names.splitlines() if line.strip())]
    images, clip = read_images(files), models.load(name)
    if not (images and classes):
        return None
    features = models.cached(clip.classes, tuple(classes), find_templates(["simple"]))
    probabilities = clip.probabilities(clip.images(images[0].rgb), features)[0].tolist()
    return dict(zip(classes, probabilities, strict=True))


def build(models: Models, names: Sequence[str]) -> None:
    """Build the page of CLIP."""
    model = models.choose(names)
    with gr.Tab("Search", visible=models.folder is not None), gr.Row(elem_classes="page"):
        with gr.Column(elem_classes="inputs"):
            sentence = gr.Textbox(
                label="Describe what you look for", placeholder="a dog in the snow", max_length=1000
            )
            like = drop_images("Or find images like these")
            offer_examples(models, names, like)
            button = gr.Button("Search", variant="primary")
        with gr.Column(elem_classes="results"):
            grid = show_images("Results, best match first", 3)
    with gr.Tab("Your own classes"), gr.Row(elem_classes="page"):
        with gr.Column(elem_classes="inputs"):
            files = drop_images("Image", several=False)
            offer_examples(models, names, files)
            listed = "\n".join(zero_shot_classes(models.source(names[0])))
            classes = gr.Textbox(
                listed,
                label="Classes, one per line",
                placeholder="cat\ndog",
                lines=4,
                max_length=10_000,
            )
            compare = gr.Button("Compare", variant="primary")
        with gr.Column(elem_classes="results"):
            label = gr.Label(label="Probabilities")
    on = [sentence.submit, button.click, like.change, model.input]
    models.answer("search_images", _search, [sentence, like, model], grid, on)
    on = [files.change, compare.click, model.input]
    models.answer("name_classes", name_classes, [files, classes, model], label, on)

    def find_images(sentence: str, model: str = names[0], top: int = _TOP) -> list[dict[str, Any]]:
        """Find images and videos in the folder of the app; the best of them and their cosines.

        Args:
            sentence: What they show, such as "a dog in the snow".
            model: Name of a CLIP, such as the folder of its run.
            top: Number of files.
        """
        if model not in names or top < 1:
            raise ValueError(
                f"model={model!r}, top={top}: there are {', '.join(names)}, and top is from 1"
            )
        return [entry(hit) for hit in find_hits(models, model, sentence, top=top)]

    models.offer(find_images)

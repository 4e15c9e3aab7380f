"""Pages of a training and of an evaluation: accuracies, retrieval in numbers and examples.

Shapes: N images, M captions, D values of a feature.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eva_contrastive.config import ContrastiveConfig, DataConfig
from eva_contrastive.evaluation.benchmarks import Opened
from eva_contrastive.evaluation.retrieval import RANKS, WAYS, EncodedPairs, Retrieval, ranks_of
from eva_contrastive.evaluation.table import expected
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_data.captions.sources import CaptionedImages
from eva_data.files import printable
from eva_data.holdout import validation_fact
from eva_data.labelled_videos.sources import middle_frame
from eva_engine.evaluation.classification_report import classification_sections
from eva_engine.evaluation.counting import Counted, Examples, LabelledSamples, Score
from eva_engine.report import Presentation, evaluation_page
from eva_report.content import (
    Example,
    Gallery,
    Report,
    ScoreRow,
    ScoreTable,
    Section,
    Step,
    TitledImage,
)
from eva_report.drawing import score_text
from eva_runs.commands import command_to_run

MOST_CLASSES = 200  # of a set with a section of its own
MOST_IMAGES = 10_000  # whose captions are compared for examples
EXAMPLES = 8  # of a gallery
_FOUND_TEXTS, _FOUND_IMAGES = 3, 2  # that are shown of each
_TEXT = 120  # characters of a caption
MEANINGS = {
    "loss": "Mean contrastive loss of the validation pairs; it depends on the batch size.",
    "image_to_text_r1": "Percent of the images that find a caption of theirs in the first place "
    "among all captions.",
    "text_to_image_r1": "Percent of the captions that find their image in the first place among "
    "all images.",
    "top1": "Percent of the images whose class is the first by sentences about the classes alone "
    "(zero-shot).",
    "top5": "Percent of the images whose class is among the first five (zero-shot).",
}


def present_training(
    config: ContrastiveConfig, pairs: int, validation: ContrastiveValidation | None
) -> Presentation:
    """Describe a training from so many captioned images on the terminal and in its report."""
    model, data = config.model, config.data
    described = [("train", f"{pairs:,} images with captions ({data.train})")]
    results: Sequence[str] = ()
    if validation is not None:
        results = validation.results
        if validation.pairs is not None:
            counted = f"{len(validation.pairs):,} images with captions"
            fact = validation_fact(counted, share=data.val_share, val=data.val, of="those in train")
            described.append(fact)
        if (classes := validation.classes) is not None:
            counts = f"{len(classes):,} images, {len(classes.classes):,} classes"
            described.append(("zero-shot", f"{counts} ({data.zero_shot})"))
    metric = config.run.best_metric
    names = sorted(results, key=lambda name: (name != metric, name == "loss"))
    return Presentation(
        task="CLIP",
        what=f"{model.variant} at {model.image_size} px, text tower {model.text}",
        weights=model.init_checkpoint,
        data=described,
        meanings={name: MEANINGS[name] for name in names},
        sections=partial(_validation_sections, validation),
        next_steps=partial(_next_steps, data),
    )


def _validation_sections(validation: ContrastiveValidation | None) -> list[Section]:
    """Make the sections on the best evaluation of a run; none before one."""
    if validation is None or validation.best.kept is None:
        return []
    encoded, counted, examples = validation.best.kept
    found: list[Section] = []
    if encoded is not None and validation.pairs is not None:
        found += retrieval_examples(encoded, validation.pairs)
    if counted is not None and validation.classes is not None:
        found += class_sections(validation.classes, counted, validation.names, examples)
    return validation.best.named(found)


def _next_steps(data: DataConfig, folder: Path) -> list[Step]:
    evaluated: list[str] = []
    if data.zero_shot:
        evaluated = ["--data", data.zero_shot, "--templates", *data.templates]
    elif data.val:  # held-out images are among those of the training's data
        evaluated = ["--pairs", data.val, *([data.root] if data.root else [])]
        for option, value in (("--image-column", data.image_column),
                              ("--caption-column", data.caption_column)):  # fmt: skip
            evaluated += [option, value] if value else []
    if not evaluated:
        return [search_step(folder, folder)]
    evaluate = command_to_run(
        "clip evaluate", "clip/evaluate_zero_shot.py",
        "--weights", folder, *evaluated, "--output", folder / "evaluation",
    )  # fmt: skip
    scored = Step(text="Score the best weights by class names or retrieval.", command=evaluate)
    return [scored, search_step(folder, folder)]


def search_step(weights: str | Path, folder: Path) -> Step:
    """Give the command that searches images by a sentence, with results in a folder."""
    command = command_to_run(
        "clip demo", "clip/demo.py", "search", "IMAGES",
        "--weights", weights, "--output", folder / "search", "--text", "what you look for",
    )  # fmt: skip
    return Step(text="Search a folder of images by a sentence.", command=command)


def describe(opened: Opened) -> list[tuple[str, str]]:
    """Name the sets of an evaluation with their counts."""
    sets = [
        (one.name, f"{len(one.samples):,} samples, {len(one.names):,} class names")
        for one in opened.benchmarks
    ]
    return sets + [
        (name, f"{len(own):,} images with captions") for name, own in opened.pairs.items()
    ]


def class_sections(
    samples: LabelledSamples,
    counted: Counted,
    names: Sequence[str],
    examples: Examples,
    *,
    of: str = "",
    **more: str,
) -> list[Section]:
    """Make the sections of a set of classes, of its counts and its wrong and right samples."""
    found = classification_sections(
        counted, names, examples=examples, name=samples.sample_id,
        image=partial(_image_of, samples), **more,
    )  # fmt: skip
    return [replace(section, title=f"{section.title}{of}") for section in found]


def _image_of(samples: LabelledSamples, index: int) -> Image.Image:
    """Read the image of a sample of a set of classes, or the middle frame of its video."""
    source: Any = samples
    while hasattr(source, "samples"):  # classes under other names
        source = source.samples
    if hasattr(source, "videos"):
        with source.videos.open(index) as video:
            return middle_frame(video)
    image: Image.Image = source.load(index)[0]
    return image


def evaluation_report(
    options: argparse.Namespace,
    scores: Mapping[str, Score],
    retrieval: Mapping[str, Retrieval],
    *,
    data: Sequence[tuple[str, str]],
    class_means: Mapping[str, float],
    sections: Sequence[Callable[[], list[Section]]],
    device: str,
) -> Report:
    """Make the page of an evaluation of sets, of which `data` has names and descriptions."""
    tables: list[Section] = []
    if scores:
        tables.append(_accuracies(scores, dict(data), class_means))
    tables += [_retrieval_table(name, found) for name, found in retrieval.items()]
    settings = {
        "sentences of data": " | ".join(options.templates or ()),
        "class names": options.classes,
        "precision": options.precision,
        "batch size": options.batch_size,
    }
    said = [f"{name}: top1 {score.top1:.2f} %" for name, score in scores.items()]
    said += [
        f"{name}: {found['image_to_text_r1']:.2f} % of the images find their caption first"
        for name, found in retrieval.items()
    ]
    return evaluation_page(
        options.output, task="CLIP", weights=str(options.weights), data=data,
        settings={name: str(value) for name, value in settings.items() if value}, device=device,
        summary=f"{'; '.join(said)}.",
        sections=[*tables, *(section for make in sections for section in make())],
        links=("table.md", "table.csv", "retrieval.csv", "per_class.csv", "confusion.png"),
        next_steps=[search_step(options.weights, options.output)],
    )  # fmt: skip


def _accuracies(
    scores: Mapping[str, Score], data: Mapping[str, str], class_means: Mapping[str, float]
) -> ScoreTable:
    values = {
        name: {
            "top1": score.top1,
            "top5": score.top5,
            "class mean": class_means.get(name),
            "EVA-CLIP-g (paper)": expected(name, score),
        }
        for name, score in scores.items()
    }
    columns = list(dict.fromkeys(
        title for one in values.values() for title, value in one.items() if value is not None
    ))  # fmt: skip
    return ScoreTable(
        title="Zero-shot accuracy",
        columns=columns,
        rows=[
            ScoreRow(name=name, values=[one[c] for c in columns], meaning=data.get(name, ""))
            for name, one in values.items()
        ],
        text="Percent of the samples whose class is the first, or among the first five, by "
        "sentences about the classes alone. The mean over classes counts each class as much as "
        "any other.",
        digits=2,
    )


def _retrieval_table(name: str, found: Retrieval) -> ScoreTable:
    rows = [
        ScoreRow(name=f"R@{rank}", values=[found[f"{way}_r{rank}"] for way in WAYS],
                 meaning="Percent that find what belongs to them "
                 + ("first." if int(rank) == 1 else f"among the first {rank}."))
        for rank in RANKS
    ]  # fmt: skip
    return ScoreTable(
        title=f"Retrieval: {name}",
        columns=["image finds its captions", "caption finds its image"],
        rows=rows,
        text=f"{found['images']:,} images, {found['texts']:,} captions. By chance, R@1 would be "
        f"{100 / found['images']:.2g} %.",
    )


def retrieval_examples(
    encoded: EncodedPairs, pairs: CaptionedImages, *, name: str = ""
) -> list[Section]:
    """Show the images and the captions of a set that find their counterparts last, and finds."""
    shown = _Shown(encoded, pairs)
    of_set = f" ({name})" if name else ""
    return [
        Gallery(
            title=f"Images that find their captions last{of_set}",
            examples=[shown.of_image(*one) for one in _last(shown.cosines, shown.own)],
            text="The place of its own caption among all, and the captions that were found before, "
            "with their cosines.",
        ),
        Gallery(
            title=f"Captions that find their images last{of_set}",
            examples=[shown.of_text(*one) for one in _last(shown.cosines.T, shown.own.T)],
            text="Its own image, and beside it the images that were found, with their cosines.",
        ),
    ]


def _last(cosines: Tensor, belongs: Tensor) -> list[tuple[int, int]]:
    """Find queries and the places, from 0, of their counterparts, the last ones first."""
    ranks = ranks_of(cosines, belongs)
    return [(index, int(ranks[index])) for index in _order(ranks)[:EXAMPLES]]


def _order(values: Tensor) -> list[int]:
    """Sort indexes by falling values, those of equal ones by their own."""
    order: list[int] = values.argsort(descending=True, stable=True).tolist()
    return order


class _Shown:
    """Makes examples of pairs; of many, a part is compared that fits into memory."""

    def __init__(self, encoded: EncodedPairs, pairs: CaptionedImages) -> None:
        most = min(len(encoded.images), MOST_IMAGES)
        self._pairs, self._kept = pairs, encoded.kept or range(most)
        owned = encoded.owners < most
        self._owners = encoded.owners[owned].cpu()
        images, texts = (one.float().cpu() for one in (encoded.images[:most], encoded.texts[owned]))
        self.cosines = images @ texts.T  # (N, M)
        self.own = self._owners[None] == torch.arange(most)[:, None]  # (N, M)

    def of_image(self, index: int, rank: int) -> Example:
        """Show an image, its captions, and those that it found."""
        cosines = self.cosines[index]
        best = int(cosines.masked_fill(~self.own[index], -torch.inf).argmax())
        own, *found = (
            f"{self._caption(at)} {score_text(float(cosines[at]))}"
            for at in (best, *_order(cosines)[:_FOUND_TEXTS])
        )
        text = f"own caption in place {rank + 1} of {len(cosines)}:\n{own}\nfound:\n"
        title = printable(Path(self._pairs.sample_id(self._kept[index])).name)
        return Example(caption=text + "\n".join(found), images=[self._image(index, title)])

    def of_text(self, index: int, rank: int) -> Example:
        """Show a caption, its image, and those that it found."""
        cosines = self.cosines[:, index]
        places = [("own", int(self._owners[index]))]
        places += [("found", at) for at in _order(cosines)[:_FOUND_IMAGES]]
        shown = [
            self._image(at, f"{name}, {score_text(float(cosines[at]))}") for name, at in places
        ]
        text = f"{self._caption(index)}: own image in place {rank + 1} of {len(cosines)}"
        return Example(caption=text, images=shown)

    def _image(self, image: int, title: str) -> TitledImage:
        return TitledImage(title=title, image=self._pairs.image(self._kept[image]))

    def _caption(self, index: int) -> str:
        owner = self._owners[index]
        number = index - int(torch.searchsorted(self._owners, owner))
        text = self._pairs.captions(self._kept[int(owner)])[number]
        return printable(f'"{text if len(text) <= _TEXT else text[: _TEXT - 4] + " ..."}"')

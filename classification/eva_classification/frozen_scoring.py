"""What `classification/evaluate_frozen.py` does: features once, then cheap classifiers on them."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eva_classification.model_options import build_extractor
from eva_data.labelled_images import LabelledImages, open_labelled
from eva_engine import distributed
from eva_engine.commands.options import check_frozen
from eva_engine.distributed import evaluation_in
from eva_engine.evaluation.classification_report import classification_sections
from eva_engine.evaluation.counting import counted_of
from eva_engine.evaluation.frozen import Kept, labelled_features, report_frozen, score_frozen
from eva_engine.report import announce
from eva_report.content import Section


def evaluate(options: argparse.Namespace, device: torch.device) -> None:
    """Score frozen features of a backbone.

    Args:
        options: Options of `eva_classification.frozen_command`.
        device: Device of this process.

    Raises:
        ValueError: If weights and data do not fit together.
    """
    with evaluation_in(options.output):
        _evaluate_to(options, device)


def _evaluate_to(options: argparse.Namespace, device: torch.device) -> None:
    began = time.monotonic()
    extractor = build_extractor(options, device)
    learn = open_labelled(options.train, extractor.transform, upright=False)
    score = open_labelled(options.val, extractor.transform, classes=learn.classes, upright=False)
    check_frozen(options, len(learn))
    sets = (("train", learn, options.train), ("val", score, options.val))
    announce(
        f"score frozen features at {extractor.image_size} px on {device.type}",
        weights=options.weights,
        data=[
            (use, f"{len(some):,} images, {len(some.classes):,} classes ({place})")
            for use, some, place in sets
        ],
    )

    def compute(samples: LabelledImages, limit: int | None, title: str) -> tuple[Tensor, Tensor]:
        (found,), labels = labelled_features(
            lambda images: [extractor(images)], samples, kept=[Kept([extractor.vit.embed_dim])],
            device=device, batch_size=options.batch_size, workers=options.workers, limit=limit,
            title=title, max_bad_samples=options.max_bad_samples,
        )  # fmt: skip
        return found, labels

    features, labels = compute(learn, options.limit, "train")
    queries, truth = compute(score, None, "val")
    if distributed.rank() > 0:
        return
    classes = len(learn.classes)
    said: list[Tensor] = []
    scores, chosen = score_frozen(
        options, features, labels, queries, truth, classes=classes, receive=said.append
    )
    settings = {
        "train_images": len(features),
        "pooling": extractor.pooling,
        "image_size": extractor.image_size,
    }
    title = (
        f"{Path(options.weights).name}, pooling {extractor.pooling}, {extractor.image_size} px: "
        f"{len(features)} images of {classes} classes to learn from"
    )
    sections = _sections(said[-1], truth, score)
    report_frozen(options, title, settings | chosen, scores, began=began, sections=sections)


def _sections(logits: Tensor, truth: Tensor, samples: LabelledImages) -> Sequence[Section]:
    counted, examples = counted_of(logits, truth)
    complete = len(truth) == len(samples)  # else the places of samples are not those of pictures
    return classification_sections(
        counted,
        samples.classes,
        examples=examples,
        name=samples.sample_id,
        picture=(lambda index: samples.load(index)[0]) if complete else None,
    )

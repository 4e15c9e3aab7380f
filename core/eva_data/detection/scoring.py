"""Annotations as faster-coco-eval takes them, and the rules of LVIS for what counts."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

Detection = dict[str, Any]  # COCO results format: image_id, category_id, bbox, score, segmentation


def read_annotations(file: str) -> COCO:
    """Read a file and number its objects: the scorer, as pycocotools, takes id 0 for "none"."""
    dataset = json.loads(Path(file).read_text(encoding="utf-8"))
    for number, annotation in enumerate(dataset.get("annotations", ()), start=1):
        annotation["id"] = number
    return COCO(dataset)


def class_scores(scorer: COCOeval_faster) -> dict[Any, float]:
    """Return the AP, 0 to 1, of each class id by a scorer that has run; NaN without objects."""
    precision = np.asarray(scorer.eval["precision"])  # (IoU, recall, class, area[, limit])
    of_all = precision[:, :, :, 0].reshape(*precision.shape[:3], -1)[..., -1]
    found = {}
    for number, key in enumerate(scorer.params.catIds):
        values = of_all[:, :, number]
        known = values[values > -1]
        found[key] = float(known.mean()) if known.size else float("nan")
    return found


def as_lvis(truth: COCO, file: str, *, otherwise: str) -> COCO:
    """Check annotations by LVIS's format, and take away marks of crowds, which it does not have."""
    for entries, field in ((truth.cats, "frequency"), (truth.imgs, "neg_category_ids")):
        if truth.anns and not all(field in entry for entry in entries.values()):
            raise ValueError(f"{file} is not in LVIS format (no {field}): use {otherwise}")
    for annotation in truth.anns.values():
        annotation["iscrowd"] = 0
    return truth


def cap_per_image(images: Iterable[list[Detection]], limit: int) -> Iterator[list[Detection]]:
    """Keep the highest scores of each image over all classes, as LVIS does; of equal the first."""
    for image in images:
        if len(image) > limit:
            image = sorted(image, key=lambda one: one["score"], reverse=True)[:limit]
        yield image


def cap_per_class(images: Iterable[list[Detection]], limit: int) -> Iterator[list[Detection]]:
    """Keep the highest scores of each class over the entire dataset; of equal ones the first.

    The "fixed AP" of https://arxiv.org/abs/2102.01066.
    """
    classes: dict[int, list[Detection]] = defaultdict(list)
    for one in itertools.chain.from_iterable(images):
        classes[one["category_id"]].append(one)
    for found in classes.values():
        yield sorted(found, key=lambda one: one["score"], reverse=True)[:limit]


def judged(images: Iterable[list[Detection]], truth: COCO) -> Iterator[Detection]:
    """Choose the detections that annotations in LVIS's format say something about.

    That is, those whose class is annotated in their image, as present or absent. The scorer would
    do it too, with everything in memory.
    """
    known = {image: set(entry["neg_category_ids"]) for image, entry in truth.imgs.items()}
    for annotation in truth.anns.values():
        known[annotation["image_id"]].add(annotation["category_id"])
    for one in itertools.chain.from_iterable(images):
        if one["category_id"] in known[one["image_id"]]:
            yield one

"""Detections in columns, and their scores by COCO's and LVIS's rules through hotcoco."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from hotcoco import COCO, COCOeval, mask as mask_api

from eva_data.files import load_json, require_regular_file

Array = np.ndarray[Any, Any]
Entry = dict[str, Any]  # COCO results format: image_id, category_id, bbox, score, segmentation

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
LVIS_METRICS = (*METRICS, "APr", "APc", "APf")
_COLUMNS = ("image_id", "category_id", "bbox", "score")
_CHUNK = 2**20  # characters
_FIELDS = {"bbox", "category_id", "image_id", "score"}  # of a prediction
_EXACT = 2**53  # up to here a float is equal to the id


@dataclass(frozen=True, kw_only=True)
class DetectionTable:
    """Detections of any number of images, under the names of COCO's results.

    Attributes:
        image_id: (n,) id of the image.
        category_id: (n,) id of the class.
        bbox: (n, 4) x, y, width and height in px.
        score: (n,) score.
        masks: A compressed RLE each; None of a detector of boxes alone.
        keypoints: (n, 3 * k) x, y and score of each keypoint; None of a detector without.
    """

    image_id: Array
    category_id: Array
    bbox: Array
    score: Array
    masks: list[Any] | None = None
    keypoints: Array | None = None

    @classmethod
    def of_image(cls, image_id: Any, *, corners: Array, **columns: Any) -> Self:
        """Make the table of an image whose boxes are x0, y0, x1, y1."""
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return cls(image_id=np.full(len(boxes), image_id), bbox=boxes, **columns)

    @classmethod
    def concatenate(cls, tables: Sequence["DetectionTable"]) -> Self:
        """Concatenate one or more tables."""
        columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in _COLUMNS}
        masks = [table.masks for table in tables if table.masks is not None]
        points = [table.keypoints for table in tables if table.keypoints is not None]
        return cls(
            **columns,
            masks=[*itertools.chain(*masks)] if masks else None,
            keypoints=np.concatenate(points) if points else None,
        )

    def limit_classes(self, limit: int) -> Self:
        """Keep the highest scores of each class over all images; of equal ones the first.

        The "fixed AP" of https://arxiv.org/abs/2102.01066.
        """
        order = np.lexsort((-self.score, self.category_id))
        ids = self.category_id[order]
        rows = np.sort(order[np.arange(len(ids)) - np.searchsorted(ids, ids) < limit])
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        masks = self.masks and [self.masks[row] for row in rows]
        return replace(self, **columns, masks=masks, keypoints=None)  # which are not scored so

    def results(self) -> list[Entry]:
        """Return the detections in COCO's format for results."""
        rows = zip(*(getattr(self, name).tolist() for name in _COLUMNS), strict=True)
        entries: list[Entry] = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        for entry, mask in zip(entries, self.masks or (), strict=self.masks is not None):
            counts = mask["counts"]
            string = counts.decode() if isinstance(counts, bytes) else counts
            entry["segmentation"] = mask | {"counts": string}
        if self.keypoints is not None:
            for entry, points in zip(entries, self.keypoints.tolist(), strict=True):
                entry["keypoints"] = points
        return entries

    def load(self, truth: COCO, kind: str) -> COCO:
        """Load the detections for hotcoco; an area is that of the box, or of the mask."""
        masks = self.masks if kind in ("segm", "boundary") else None
        if (
            kind == "keypoints"
            or max(self.image_id.max(initial=0), self.category_id.max(initial=0)) > _EXACT
        ):
            loaded = truth.load_res(self.results())
        else:
            columns = (self.image_id, self.bbox, self.score, self.category_id)
            loaded = truth.load_res(np.column_stack(columns), segmentation=masks)
        if masks:
            loaded.update_anns(ids=np.arange(1, len(masks) + 1), area=mask_api.area(masks))
        return loaded


class PredictionFile:
    """The predictions in a file of COCO's results, of which one is in memory at a time."""

    def __init__(self, file: Path) -> None:
        require_regular_file(file)
        self._file = file

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Read the predictions in their order; a ValueError names a file that is damaged."""
        decode = json.JSONDecoder().raw_decode
        with self._file.open(encoding="utf-8") as stream:
            buffer, position = stream.read(_CHUNK).lstrip(), 1
            if not buffer.startswith("["):
                raise ValueError(f"{self._file} is not a list of predictions")
            while True:
                while buffer[position : position + 1] in tuple(" \n\r\t,"):
                    position += 1
                if buffer[position : position + 1] == "]":
                    return
                try:
                    entry, position = decode(buffer, position)
                except ValueError as error:
                    more = stream.read(_CHUNK)
                    if not more:
                        raise ValueError(
                            f"{self._file} is not a complete list of predictions: {error}"
                        ) from error
                    buffer, position = buffer[position:] + more, 0
                    continue
                if not isinstance(entry, dict) or not entry.keys() >= _FIELDS:
                    field_names = ", ".join(sorted(_FIELDS))
                    raise ValueError(f"{self._file} holds {entry!r:.200}, without {field_names}")
                yield entry


def read_lvis(file: str, *, otherwise: str) -> dict[str, Any]:
    """Read annotations in LVIS's format, without marks of crowds, which it does not have."""
    labels: dict[str, Any] = load_json(Path(file))
    objects = labels.get("annotations", ())
    for kind, field in (("categories", "frequency"), ("images", "neg_category_ids")):
        if objects and not all(field in entry for entry in labels[kind]):
            raise ValueError(f"{file} is not in LVIS format (no {field}): use {otherwise}")
    for annotation in objects:
        annotation["iscrowd"] = 0
    return labels


def score(
    truth: COCO,
    detections: COCO,
    kind: str,
    *,
    limit: int,
    lvis: bool = False,
    fixed: bool = False,
    sigmas: Sequence[float] | None = None,
) -> tuple[dict[str, float], dict[int, float]]:
    """Score detections.

    Args:
        truth: Annotations.
        detections: What `DetectionTable.load` returns.
        kind: "bbox", "segm", "boundary", mask AP with the boundary IoU of arXiv 2103.16562, or
            "keypoints", by object keypoint similarity (OKS).
        limit: Detections of an image that count: by COCO's rules of each class, by LVIS's of all.
        lvis: Whether LVIS's rules hold: a detection counts only where the image says that its
            class is present or absent, a wrong one where the class is annotated exhaustively.
        fixed: Whether `limit` holds for a class alone by LVIS's rules, too.
        sigmas: Of each keypoint, in OKS; None for COCO's of a person.

    Returns:
        Metric and class id, each -> AP from 0 to 1, NaN where there are no objects. Without a
        detection all metrics are NaN, and classes have none.
    """
    names = LVIS_METRICS if lvis else METRICS
    if not detections.get_ann_ids():
        return dict.fromkeys(names, math.nan), {}
    if lvis:
        detections = detections.cap_detections_per_image(None if fixed else limit)
    make: Any = _boundary_scorer if kind == "boundary" else COCOeval
    scorer = make(truth, detections, kind, lvis_style=lvis)
    scorer.params.maxDets = [limit]
    if sigmas:
        scorer.params.kpt_oks_sigmas = [*sigmas]
    scorer.evaluate()
    scorer.accumulate()
    precision = np.asarray(scorer.eval["precision"])  # (IoU, recall, class, area[, limit])
    of_all, *of_sizes = np.moveaxis(precision.reshape(precision.shape[:4]), 3, 0)
    if kind == "keypoints":  # COCO has none of small objects
        of_sizes.insert(0, np.full_like(of_all, -1))
    values, categories = [of_all, of_all[0], of_all[5], *of_sizes], sorted(truth.cats.items())
    if lvis:
        groups = [entry["frequency"] for _, entry in categories]
        values += [
            of_all[:, :, [group_of_class == group for group_of_class in groups]] for group in "rcf"
        ]
    of_classes = np.ascontiguousarray(np.moveaxis(of_all, 2, 0))
    classes = {
        key: _mean(precisions) for (key, _), precisions in zip(categories, of_classes, strict=True)
    }
    return dict(zip(names, map(_mean, values), strict=True)), classes


def _boundary_scorer(truth: COCO, detections: COCO, kind: str, *, lvis_style: bool) -> Any:
    """Make a scorer by faster-coco-eval, since hotcoco has no boundary IoU."""
    import faster_coco_eval

    labels = truth.dataset  # a copy, without lists that are empty
    for number, annotation in enumerate(labels["annotations"], start=1):
        annotation["id"] = number  # a match with 0 would be none
    for image in labels["images"] if lvis_style else ():
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []} | image
    annotations = faster_coco_eval.COCO(labels)
    # an area is that of the mask; the empty box is one that nobody computes
    results = annotations.loadRes(
        [annotation | {"bbox": []} for annotation in detections.dataset["annotations"]]
    )
    style = dict(lvis_style=lvis_style, print_function=str)  # which is silent
    return faster_coco_eval.COCOeval_faster(annotations, results, kind, **style)


def _mean(values: Array) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else math.nan

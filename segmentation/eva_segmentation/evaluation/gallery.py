"""Images of a report: truth and prediction side by side, the worst and the best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import is_model_wrapper
from numpy.typing import NDArray
from PIL import Image

from eva_data.images import read_rgb
from eva_data.label_maps import IGNORED
from eva_report.content import Example, Gallery, TitledImage
from eva_report.drawing import Color, overlay
from eva_segmentation.evaluation.metric import ImageScore

SHOWN = 6  # of the worst, and of the best
_SIDE = 1024  # pixels of an image in the report
_LEAST_SHARE = 0.002  # of the pixels, for a name below an image
Labels = NDArray[np.uint8]


def galleries(
    model: Any,
    dataset: Any,
    scored: Sequence[ImageScore],
    names: Sequence[str],
    colors: Sequence[Color],
) -> list[Gallery]:
    """Choose the worst and the best images that were scored, segment them again, and draw them."""
    ordered = sorted(scored, key=lambda one: one.iou)
    count = min(SHOWN, len(ordered) - len(ordered) // 2)
    chosen = {"Worst images": ordered[:count], "Best images": ordered[count:][-SHOWN:][::-1]}
    found = _segmented(model, dataset, {one.path for some in chosen.values() for one in some})
    return [
        Gallery(
            title=title,
            examples=[_example(one, found[one.path], names, colors) for one in some],
            text="By the mean IoU over the classes of an image. Pixels without a label are not "
            "painted.",
            legend=_legend([maps for one in some for maps in found[one.path]], names, colors),
        )
        for title, some in chosen.items()
    ]


def _legend(
    maps: Sequence[Labels], names: Sequence[str], colors: Sequence[Color]
) -> list[tuple[str, Color]]:
    """List the classes of some label maps, the largest first."""
    pixels = sum((np.bincount(one.ravel(), minlength=256) for one in maps), np.zeros(256, int))
    order = np.argsort(-pixels[: len(names)])
    return [(names[index], colors[index]) for index in order if pixels[index]]


def _segmented(model: Any, dataset: Any, paths: set[str]) -> dict[str, tuple[Labels, Labels]]:
    """Predict for some images of a dataset: path -> truth and prediction."""
    model = model.module if is_model_wrapper(model) else model
    model.eval()
    found = {}
    for index in range(len(dataset)):
        path = str(dataset.get_data_info(index).get("img_path"))
        if path not in paths:
            continue
        with torch.inference_mode():
            (sample,) = model.test_step(pseudo_collate([dataset[index]]))
        truth, prediction = (
            sample.get(name).data.squeeze().to("cpu", torch.uint8).numpy()
            for name in ("gt_sem_seg", "pred_sem_seg")
        )
        found[path] = truth, prediction
    return found


def _example(
    scored: ImageScore, maps: tuple[Labels, Labels], names: Sequence[str], colors: Sequence[Color]
) -> Example:
    truth, prediction = maps
    wrong = (truth != IGNORED) & (truth != prediction)
    share = wrong.sum() / max(1, (truth != IGNORED).sum())
    rgb, images = read_rgb(scored.path, upright=True), []
    for title, classes in (("truth", truth), ("prediction", prediction)):
        image = Image.fromarray(overlay(rgb, classes, colors))
        image.thumbnail((_SIDE, _SIDE))
        images.append(TitledImage(title=f"{title}: {_listed(classes, names)}", image=image))
    name = Path(scored.path).name
    caption = f"{name}: IoU {100 * scored.iou:.1f}, {share:.0%} of the pixels wrong"
    return Example(caption=caption, images=images)


def _listed(classes: Labels, names: Sequence[str]) -> str:
    shares = np.bincount(classes.ravel(), minlength=len(names))[: len(names)] / classes.size
    shown = [index for index in np.argsort(-shares) if shares[index] >= _LEAST_SHARE]
    return ", ".join(f"{names[index]} {shares[index]:.0%}" for index in shown)

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
    chosen = {"Worst images": ordered[:count]}
    chosen["Best images"] = ordered[count:][-SHOWN:][::-1]
    found = _segmented(model, dataset, {one.path for some in chosen.values() for one in some})
    text = "By the mean IoU over the classes of an image. Pixels without a label are not painted."
    return [
        Gallery(
            title=title,
            examples=[
                _example(one, *found[one.path], names, colors) for one in some if one.path in found
            ],
            text=text,
            legend=_legend([found[one.path] for one in some if one.path in found], names, colors),
        )
        for title, some in chosen.items()
    ]


def _legend(
    maps: Sequence[tuple[Labels, Labels]], names: Sequence[str], colors: Sequence[Color]
) -> list[tuple[str, Color]]:
    """List the classes of some label maps, the largest first."""
    pixels = sum(
        (np.bincount(one.ravel(), minlength=256) for pair in maps for one in pair),
        np.zeros(256, np.int64),
    )[: len(names)]
    shown = [index for index in np.argsort(-pixels) if pixels[index]]
    return [(names[index].strip(), colors[index]) for index in shown]


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
    scored: ImageScore,
    truth: Labels,
    prediction: Labels,
    names: Sequence[str],
    colors: Sequence[Color],
) -> Example:
    rgb = read_rgb(scored.path, upright=True)
    maps = {"truth": truth, "prediction": prediction}
    wrong = (truth != IGNORED) & (truth != prediction)
    share = wrong.sum() / max(1, (truth != IGNORED).sum())
    name = Path(scored.path).name
    return Example(
        caption=f"{name}: IoU {100 * scored.iou:.1f}, {share:.0%} of the pixels wrong",
        images=[
            TitledImage(
                title=f"{title}: {_listed(classes, names)}", image=_drawn(rgb, classes, colors)
            )
            for title, classes in maps.items()
        ],
    )


def _drawn(rgb: NDArray[np.uint8], classes: Labels, colors: Sequence[Color]) -> Image.Image:
    image = Image.fromarray(overlay(rgb, classes, colors))
    image.thumbnail((_SIDE, _SIDE))
    return image


def _listed(classes: Labels, names: Sequence[str]) -> str:
    shares = np.bincount(classes.ravel(), minlength=len(names))[: len(names)] / classes.size
    shown = [index for index in np.argsort(-shares) if shares[index] >= _LEAST_SHARE]
    return ", ".join(f"{names[index].strip()} {shares[index]:.0%}" for index in shown)

"""The first training batch as the model sees it: a sheet in the run's folder and report."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from PIL import Image

from eva_data.bands import Bands
from eva_data.saving import replace_file
from eva_report.content import Example, Gallery, Section, TitledImage
from eva_report.drawing import DrawnObject, Pixels, draw_objects
from eva_report.sheets import SIDE, SheetSection, Tile, draw_contact_sheet
from eva_report.terminal import counted

logger = logging.getLogger(__name__)

FIRST_BATCH = "first_batch.jpg"
SAMPLES = 8  # that are shown, at most
_COLUMNS, _LINE = 4, 30  # of the sheet; letters below a sample
_TITLE = "First training batch"


def keep_first_batch(folder: Path, samples: Callable[[], Iterable[Tile]]) -> None:
    """Write the sheet of a run's first samples, by its main process; a failure is one warning."""
    try:
        tiles = [*samples()]
        if tiles:
            rows = math.ceil(len(tiles) / _COLUMNS)  # of which the last is not half empty
            columns = math.ceil(len(tiles) / rows)
            sheet = draw_contact_sheet([SheetSection(_TITLE, tiles)], columns=columns)
            with replace_file(folder / FIRST_BATCH) as part:
                sheet.save(part, quality=85)
    except Exception as error:  # whatever it is: the training goes on
        logger.warning("no %s in %s: %r", FIRST_BATCH, folder, error)


def watch_first_batch(model: Any, folder: Path, samples: Callable[..., Iterable[Tile]]) -> None:
    """Keep what a model's first forward pass is given; `samples` takes the same arguments."""

    def keep(_: Any, words: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hook.remove()
        keep_first_batch(folder, lambda: samples(*words, **keywords))

    hook = model.register_forward_pre_hook(keep, with_kwargs=True)


def first_batch(folder: Path) -> list[Section]:
    """Show the sheet of a run, if there is one."""
    file = folder / FIRST_BATCH
    if not file.is_file():
        return []
    with Image.open(file) as sheet:
        shown = TitledImage(title=FIRST_BATCH, image=sheet.convert("RGB"))
    description = "Samples and labels as the model sees them, after cropping and augmentation."
    return [Gallery(title=_TITLE, examples=[Example(caption="", images=[shown])], text=description)]


def denormalize(images: Any, mean: Sequence[float], std: Sequence[float]) -> Pixels:
    """Make pixels (..., H, W, 3) of a tensor (..., 3, H, W) normalised by these, of values to 1."""
    values = np.moveaxis(images.detach().float().cpu().numpy(), -3, -1)
    scaled = values * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    pixels: Pixels = np.rint(255 * scaled).clip(0, 255).astype(np.uint8)
    return pixels


def denormalize_bands(images: Any, bands: Bands) -> Pixels:
    """Make pixels (B, H, W, 3) of a normalised tensor (B, N, H, W) of bands, of those shown."""
    shown = [band - 1 for band in bands.show]
    mean, std = ([values[band] for band in shown] for values in (bands.mean, bands.std))
    return denormalize(images[:, shown], mean, std)


def image_tiles(
    images: Any,
    captions: Iterable[str],
    mean: Sequence[float],
    std: Sequence[float],
    bands: Bands | None = None,
) -> Iterator[Tile]:
    """Show images (B, 3, H, W) or four frames of clips (B, T, 3, H, W), in two rows."""
    images = images[:SAMPLES]
    shown = denormalize_bands(images, bands) if bands else denormalize(images, mean, std)
    for pixels, caption in zip(shown, captions, strict=False):
        if pixels.ndim == 4:
            a, b, c, d = pixels[np.linspace(0, len(pixels) - 1, 4).round().astype(int)]
            pixels = np.vstack([np.hstack([a, b]), np.hstack([c, d])])
        first, second, *_ = *wrap(caption, _LINE, max_lines=2, placeholder=" ..."), "", ""
        yield Tile(Image.fromarray(pixels), first, second)


def objects_tile(
    rgb: Pixels,
    boxes: Any,
    labels: Any,
    masks: Any,
    *,
    names: Sequence[str],
    keypoints: Any = None,
    skeleton: Sequence[Sequence[int]] = (),
) -> Tile:
    """Draw N objects: boxes (N, 4) as x0, y0, x1, y1, labels (N,), masks (N, H, W) or None.

    `keypoints` (N, K, 3) are x, y and visibility.
    """
    codes = [None] * len(boxes)
    if masks is not None and len(masks):
        codes = mask_api.encode(np.asfortranarray(np.asarray(masks, np.uint8).transpose(1, 2, 0)))
    points = [()] * len(boxes) if keypoints is None else keypoints.flatten(1).tolist()
    columns = zip(boxes.tolist(), labels.tolist(), codes, points, strict=True)
    objects = [
        DrawnObject(
            box,
            names[label] if label < len(names) else str(label),
            label,
            None,
            code,
            values,
            skeleton,
        )
        for box, label, code, values in columns
    ]
    drawn = Image.fromarray(draw_objects(rgb, objects, longest=SIDE))
    return Tile(
        drawn, counted(len(objects), "object"), ", ".join({item.name: 0 for item in objects})
    )

"""Objects drawn on a picture: box, mask, name and score; labels and predictions alike."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eva_data.files import printable
from eva_report.drawing.lettering import Font, font, shortened
from eva_report.drawing.masks import inner_edge, placed, resized
from eva_report.drawing.style import class_color, enlarged, enlargement, score_text, text_color

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom, the last two outside

LONGEST_SIDE = 2**16 - 1  # pixels; of a JPEG
_PAINT = 0.4  # opacity of masks
_SHADE = 0.5  # opacity of the dark line around boxes, which shows them on their own colour
_LETTERS = 200  # of a name, at most
_CROWD = 30  # objects


class DrawnObject(NamedTuple):
    """An object to draw.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the picture.
        name: Name of its class.
        label: Number of its class, which chooses the colour.
        score: Score, 0 to 1; None for labels.
        mask: (H, W) bool, or a run-length code of COCO; None without one.
    """

    box: Sequence[float]
    name: str
    label: int
    score: float | None = None
    mask: NDArray[np.bool_] | dict[str, Any] | None = None


def draw_objects(
    image: Pixels,
    objects: Sequence[DrawnObject],
    *,
    scale: int | None = None,
    longest: int | None = None,
) -> Pixels:
    """Draw objects on a picture: masks, then boxes, the largest first; then names and scores.

    In a crowd, names that have no free place are left out, those of the lowest scores first. A
    picture takes its own memory and that of a single mask, however many objects it has.

    Args:
        image: (H, W, 3) RGB.
        objects: Objects in pixels of the image.
        scale: Enlargement; None for that of `eva_report.drawing.style.enlargement`.
        longest: Longest side of the result; a larger picture is made smaller before it is drawn
            on, so that names stay legible where it is shown. None for the picture's own size.

    Returns:
        (H * scale, W * scale, 3) RGB, or smaller by `longest`.

    Raises:
        ValueError: If a side is longer than can be drawn, or a mask has another size.
    """
    height, width = image.shape[:2]
    factor = enlargement(height, width) if scale is None else scale
    if max(height, width) * factor > LONGEST_SIDE:
        raise ValueError(
            f"a side of {max(height, width) * factor:,} px is longer than can be drawn: "
            f"{LONGEST_SIDE:,}"
        )
    canvas, ratio = _canvas(image, factor, longest)
    known = [one for one in objects if np.isfinite(np.asarray(one.box, float)).all()]
    boxes = [_on_canvas(one.box, ratio, canvas) for one in known]
    size = _letter_size(canvas, boxes)
    line = max(1, round(size / 8))
    by_area = sorted(range(len(known)), key=lambda index: -_area(boxes[index]))
    for index in by_area:
        if known[index].mask is not None:
            _paint_mask(canvas, known[index], (height, width), ratio, line)
    for index in by_area:
        _draw_box(canvas, boxes[index], class_color(known[index].label), line)
    _draw_tags(canvas, known, boxes, font(size))
    return canvas


def _letter_size(canvas: Pixels, boxes: Sequence[Box]) -> int:
    """Pixels of a letter: by the picture, and in a crowd by its boxes too."""
    size = math.sqrt(canvas.shape[0] * canvas.shape[1]) / 50
    if len(boxes) >= _CROWD:
        size = min(size, math.sqrt(np.median([_area(box) for box in boxes])) / 4)
    return int(np.clip(size, 12, 48))


def _canvas(image: Pixels, factor: int, longest: int | None) -> tuple[Pixels, float]:
    side = max(image.shape[:2])
    if longest is None or side * factor <= longest:
        return np.array(enlarged(image, factor)), float(factor)
    height, width = (max(1, round(length * longest / side)) for length in image.shape[:2])
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)
    return np.array(small), longest / side


def _on_canvas(box: Sequence[float], ratio: float, canvas: Pixels) -> Box:
    """Clip a box to the canvas; a pixel of it is left at least."""
    height, width = canvas.shape[:2]
    xs, ys = sorted((box[0], box[2])), sorted((box[1], box[3]))
    left, right = (min(max(value * ratio, 0), width) for value in xs)
    top, bottom = (min(max(value * ratio, 0), height) for value in ys)
    x, y = min(int(left), width - 1), min(int(top), height - 1)
    return x, y, max(x + 1, math.ceil(right)), max(y + 1, math.ceil(bottom))


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _paint_mask(
    canvas: Pixels, one: DrawnObject, size: tuple[int, int], ratio: float, line: int
) -> None:
    assert one.mask is not None
    part = placed(one.mask, *size)
    if part is None:
        return
    top, left, mask = resized(part, ratio)
    below = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    mask = mask[: below.shape[0], : below.shape[1]]
    colour = np.array(class_color(one.label), np.uint8)
    painted = below[mask] * np.float32(1 - _PAINT) + colour * np.float32(_PAINT)
    below[mask] = np.round(painted)
    below[inner_edge(mask, max(1, line // 2))] = colour


def _draw_box(canvas: Pixels, box: Box, colour: tuple[int, int, int], line: int) -> None:
    for x0, y0, x1, y1 in _frame((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), 1):
        part = canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        part[:] = part * np.float32(1 - _SHADE)
    for x0, y0, x1, y1 in _frame(box, line):
        canvas[y0:y1, x0:x1] = colour


def _frame(box: Box, line: int) -> Iterator[Box]:
    """The four bars of a box, which do not overlap."""
    left, top, right, bottom = box
    yield left, top, right, min(top + line, bottom)
    yield left, max(bottom - line, top + line), right, bottom
    yield left, top + line, min(left + line, right), bottom - line
    yield max(right - line, left + line), top + line, right, bottom - line


def _draw_tags(
    canvas: Pixels, objects: Sequence[DrawnObject], boxes: Sequence[Box], letters: Font
) -> None:
    """Draw names and scores, the best first, each where it covers no other."""
    height, width = canvas.shape[:2]
    _, first, _, last = letters.getbbox("Ag|")
    pad = max(1, round((last - first) / 6))
    high = min(height, round(last - first) + 2 * pad)
    taken = np.zeros((len(objects), 4), np.int64)
    count = 0
    for index in sorted(range(len(objects)), key=lambda index: -_rank(objects[index])):
        text = _tag(objects[index], letters, width - 2 * pad)
        wide = min(width, math.ceil(letters.getlength(text)) + 2 * pad)
        free = (
            (x, y, x + wide, y + high)
            for x, y in _places(boxes[index], wide, high, canvas)
            if not _covers(taken[:count], (x, y, x + wide, y + high))
        )
        if place := next(free, None):
            taken[count] = place
            count += 1
            colour = class_color(objects[index].label)
            tag = Image.new("RGB", (wide, high), colour)
            ink = ImageDraw.Draw(tag)
            ink.text((pad, pad - first), text, fill=text_color(colour), font=letters)
            canvas[place[1] : place[3], place[0] : place[2]] = np.asarray(tag)


def _covers(taken: NDArray[np.int64], place: Box) -> bool:
    left, top, right, bottom = place
    beside = (taken[:, 0] >= right) | (taken[:, 2] <= left)
    return not (beside | (taken[:, 1] >= bottom) | (taken[:, 3] <= top)).all()


def _rank(one: DrawnObject) -> float:
    return 1.0 if one.score is None or math.isnan(one.score) else one.score


def _tag(one: DrawnObject, letters: Font, width: float) -> str:
    """Name and score; a name that is too long is cut, and the score is kept."""
    score = "" if one.score is None else score_text(one.score)
    name = printable(one.name[:_LETTERS])
    room = width - (letters.getlength(f" {score}") if score else 0)
    return f"{shortened(name, letters, room)} {score}".strip() if room > 0 else score


def _places(box: Box, wide: int, high: int, canvas: Pixels) -> Iterator[tuple[int, int]]:
    """Places of a tag inside the picture: above the box, inside, below; left, then right."""
    height, width = canvas.shape[:2]
    left, top, right, bottom = box
    rows = (top - high, top, bottom, bottom - high)
    for x in (left, right - wide):
        for y in rows:
            if 0 <= y <= height - high:
                yield min(max(x, 0), width - wide), y
    yield min(max(left, 0), width - wide), min(max(top, 0), height - high)

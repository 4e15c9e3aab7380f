"""Annotated images: one style for reports, demos and evaluations.

Boxes, masks and labels are drawn by supervision; label maps, legends and class names by Pillow.
Images are (H, W, 3) RGB arrays of uint8.
"""

import bisect
import math
from collections.abc import Sequence
from colorsys import hls_to_rgb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eva_data.files import printable

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Pixels = NDArray[np.uint8]

READABLE_SIDE = 512  # smaller images are enlarged, since labels would cover them
LONGEST_SIDE = 2**16 - 1  # pixels of a JPEG
_HUES = (
    (228, 26, 28),
    (55, 126, 184),
    (77, 175, 74),
    (152, 78, 163),
    (255, 127, 0),
    (0, 158, 150),
    (166, 86, 40),
    (247, 80, 170),
    (120, 140, 20),
    (70, 80, 220),
)
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it spread over a circle
_TONES = (  # lightness, saturation; their number divides no small Fibonacci number
    (0.45, 0.9),
    (0.62, 0.75),
    (0.35, 0.7),
    (0.72, 0.85),
    (0.52, 0.5),
    (0.28, 0.9),
)
_MASK_OPACITY = 0.4
_NAME_LETTERS = 60
_CROWD = 30  # objects, from which on names may cover each other
_LEAST_SHARE = 0.0005  # of the pixels, for a line in a legend
_LARGEST_IN_PALETTE = 255
_WIDEST_NAME = 600  # pixels in a legend
_MOST_LETTERS = 1000  # no image has room for more


class DrawnObject(NamedTuple):
    """An object to draw."""

    box: Sequence[float]  # x0, y0, x1, y1 in pixels of the image
    name: str  # of its class
    label: int  # number of its class, which chooses the color
    score: float | None = None  # 0 to 1; None for ground truth
    mask: dict[str, Any] | None = None  # COCO run-length code
    keypoints: Sequence[float] = ()  # x, y, and 0 for those that are not labelled, of each
    skeleton: Sequence[Sequence[int]] = ()  # numbers, from 1, of two that a line connects
    boxed: bool = True  # whether the box is drawn, which says nothing of stuff


def class_color(index: int) -> Color:
    """Return the color (red, green, blue) of a class by its number, the same in every image.

    The first ten differ at a glance; some hundred have a color of their own.
    """
    if 0 <= index < len(_HUES):
        return _HUES[index]
    light, strength = _TONES[index % len(_TONES)]
    red, green, blue = hls_to_rgb(index * _GOLDEN % 1, light, strength)
    return round(255 * red), round(255 * green), round(255 * blue)


def score_text(score: float) -> str:
    """Write a score between 0 and 1, or a cosine, as everywhere in the toolkit: "0.87"."""
    return f"{score:z.2f}"


def enlargement(height: int, width: int) -> int:
    """Return the factor that makes a small image legible: 1 from `READABLE_SIDE` on."""
    return max(1, math.ceil(READABLE_SIDE / max(height, width)))


def enlarge(image: Pixels, scale: int) -> Pixels:
    """Repeat pixels, so that no value is invented: (H * scale, W * scale, C)."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def font_file() -> str | None:
    """Return the font of matplotlib, which has more letters than Pillow's; None without it."""
    try:
        from matplotlib import get_data_path
    except ImportError:
        return None
    return str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def font(size: int) -> Font:
    """Load the font of all annotations, with letters of this many pixels."""
    file = font_file()
    if file:
        return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)


def shorten(label: str, letters: Font, width: float) -> str:
    """Make one line of a text, whose end is cut where it has more pixels than `width`."""
    label = printable(" ".join(label[:_MOST_LETTERS].split()))
    if letters.getlength(label) <= width:
        return label
    length = bisect.bisect_right(
        range(len(label)), width, key=lambda count: letters.getlength(f"{label[:count]}...")
    )
    return label[: max(length - 1, 0)].rstrip() + "..."


def clock(seconds: float) -> str:
    """Write a time as minutes and tenths of seconds, with hours where there are any."""
    minutes, tenths = divmod(round(max(seconds, 0.0) * 10), 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def draw_objects(
    image: Pixels, objects: Sequence[DrawnObject], *, longest: int | None = None
) -> Pixels:
    """Draw masks, boxes, and names with scores on an image (H, W, 3), which stays as it is.

    A small image is enlarged, and one with a longer side than `longest` made smaller before it is
    drawn on, so that names stay legible. Objects whose box is not finite are left out.

    Raises:
        ValueError: If a side is longer than a JPEG can have, or a mask has another size.
    """
    height, width = image.shape[:2]
    factor = float(enlargement(height, width))
    if longest is not None and max(height, width) * factor > longest:
        factor = longest / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if max(size) > LONGEST_SIDE:
        raise ValueError(f"a side of {max(size):,} px is longer than {LONGEST_SIDE:,} px")
    kind = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BICUBIC
    canvas = np.array(Image.fromarray(image).resize(size[::-1], kind))
    finite = [item for item in objects if np.isfinite(np.asarray(item.box, float)).all()]
    return _annotated(canvas, finite, (height, width)) if finite else canvas


def _annotated(canvas: Pixels, objects: Sequence[DrawnObject], size: tuple[int, int]) -> Pixels:
    import supervision as sv  # takes seconds

    height, width = canvas.shape[:2]
    limits = np.array([width, height] * 2)
    boxes = np.array([item.box for item in objects], float)
    placed = (boxes * limits / np.array([size[1], size[0]] * 2)).clip(0, limits)
    present, numbers = np.unique([item.label for item in objects], return_inverse=True)
    colors = [class_color(label) for label in present]
    palette = sv.ColorPalette([sv.Color(*color) for color in colors])
    detections = sv.Detections(xyxy=placed, class_id=numbers)
    letter = _letter_size(canvas, placed)
    line = max(1, round(letter / 8))
    scene = np.ascontiguousarray(canvas[..., ::-1])  # supervision's arrays are BGR
    codes = [item.mask for item in objects if item.mask is not None]
    if codes:
        masked = np.array([item.mask is not None for item in objects])
        masks = _placed_masks(codes, size).resize((height, width))
        some = sv.Detections(xyxy=placed[masked], mask=masks, class_id=numbers[masked])
        scene = sv.MaskAnnotator(palette, _MASK_OPACITY).annotate(scene, some)
        scene = sv.PolygonAnnotator(palette, max(1, line // 2)).annotate(scene, some)
    boxed = np.array([item.boxed for item in objects])
    framed = sv.Detections(xyxy=placed[boxed], class_id=numbers[boxed])
    scene = sv.BoxAnnotator(palette, line).annotate(scene, framed)
    for item in (item for item in objects if len(item.keypoints)):
        scene = _with_keypoints(scene, item, (width / size[1], height / size[0]), line)
    names = sv.RichLabelAnnotator(
        palette,
        text_color=sv.ColorPalette([sv.Color(*text_color(color)) for color in colors]),
        font_path=font_file(),
        font_size=letter,
        text_padding=max(1, letter // 5),
        smart_position=len(objects) <= _CROWD,
    )
    scene = names.annotate(scene, detections, labels=[_tag(item) for item in objects])
    return np.ascontiguousarray(scene[..., ::-1])


def _with_keypoints(
    scene: Pixels, item: DrawnObject, scale: tuple[float, float], line: int
) -> Pixels:
    """Draw the keypoints of an object, and the lines between them, in BGR."""
    import supervision as sv

    values = np.reshape(item.keypoints, (1, -1, 3))
    places = ((values[..., :2] + 0.5) * scale).astype(np.float32)  # the middle of a pixel
    points = sv.KeyPoints(xy=places, visible=values[..., 2] != 0)
    color = sv.Color(*class_color(item.label))
    if item.skeleton:
        edges = [(a, b) for a, b in item.skeleton]
        scene = sv.EdgeAnnotator(color, max(1, line), edges).annotate(scene, points)
    for shade, radius in ((sv.Color.WHITE, 2 * line + 1), (color, 2 * line)):
        scene = sv.VertexAnnotator(shade, radius).annotate(scene, points)
    return scene


def _placed_masks(codes: Sequence[dict[str, Any]], size: tuple[int, int]) -> Any:
    """Make supervision's masks, which take the memory of their boxes and not of the image."""
    from supervision.detection.compact_mask import CompactMask

    held = np.array([mask_api.toBbox(code) for code in codes])  # x, y, width, height
    held[:, 2:] = held[:, :2] + np.maximum(held[:, 2:], 1) - 1  # the last column and row
    return CompactMask.from_coco_rle(codes, held, size)


def _letter_size(canvas: Pixels, boxes: NDArray[np.float64]) -> int:
    """Return pixels of a letter: by the image, and in a crowd by its boxes too."""
    size = math.sqrt(canvas.shape[0] * canvas.shape[1]) / 50
    if len(boxes) >= _CROWD:
        sides = boxes[:, 2:] - boxes[:, :2]
        size = min(size, math.sqrt(np.median(sides.prod(axis=1))) / 4)
    return int(np.clip(size, 12, 48))


def _tag(item: DrawnObject) -> str:
    score = "" if item.score is None else score_text(item.score)
    name = " ".join(printable(item.name).split())
    name = name if len(name) <= _NAME_LETTERS else f"{name[:_NAME_LETTERS]}..."
    return f"{name} {score}".strip() or " "


def text_color(background: Color) -> Color:
    """Return black or white, whichever has more contrast with a color."""
    linear = [((value / 255 + 0.055) / 1.055) ** 2.4 for value in background]  # of sRGB
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)  # equal contrast with both


def overlay(
    rgb: Pixels, classes: NDArray[np.integer[Any]], colors: Sequence[Color], *, opacity: float = 0.5
) -> Pixels:
    """Paint the classes of a label map over an image, which is enlarged if it is small.

    Args:
        rgb: (H, W, 3).
        classes: (H, W) indexes; those without a color, such as 255 for "ignore", are not painted.
        colors: Color of each class.
        opacity: Opacity of the paint, 0 to 1.
    """
    palette = np.asarray(colors, np.float32)
    in_palette = classes < len(palette)
    painted = rgb.copy()
    paint = palette[classes[in_palette]]  # (n, 3)
    painted[in_palette] = np.round(
        rgb[in_palette] * np.float32(1 - opacity) + paint * np.float32(opacity)
    )
    return enlarge(painted, enlargement(*rgb.shape[:2]))


def with_legend(
    image: Pixels, classes: NDArray[np.integer[Any]], names: Sequence[str], colors: Sequence[Color]
) -> Pixels:
    """Add a column with color, name and share of each class in the image, the largest first.

    The image (H', W', 3) gets wider, and higher where the column needs it. Of the indexes (H, W),
    those without a name count as pixels and have no line.
    """
    height, width = image.shape[:2]
    shares = np.bincount(classes.ravel(), minlength=len(names))[: len(names)] / classes.size
    shown = [index for index in np.argsort(-shares) if shares[index] >= _LEAST_SHARE]
    size = int(np.clip(height / 28, 11, 40))
    letters = font(size)
    widest = max(width, _WIDEST_NAME)
    texts = [f"{shorten(names[i], letters, widest)}  {shares[i]:.1%}" for i in shown]
    line, gap = round(size * 1.6), size // 2
    longest = max((letters.getlength(label) for label in texts), default=0)
    column = round(longest) + line + 3 * gap
    canvas = Image.new("RGB", (width + column, max(height, len(shown) * line + 2 * gap)), "white")
    canvas.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (index, label) in enumerate(zip(shown, texts, strict=True)):
        left, top = width + gap, gap + row * line
        box = (left, top, left + line - gap // 2, top + line - gap // 2)
        draw.rectangle(box, fill=tuple(colors[index]), outline="black")
        middle = (left + line + gap, top + (line - gap // 2) / 2)
        draw.text(middle, label, fill="black", font=letters, anchor="lm")
    return np.asarray(canvas)


def label_image(
    classes: NDArray[np.integer[Any]], labels: Sequence[int], colors: Sequence[Color]
) -> Image.Image:
    """Make a label map of (H, W) indexes with the dataset's value, and color, of each class.

    Values above 255 have no palette.
    """
    values = np.asarray(labels, np.uint16)[classes]
    if max(labels) > _LARGEST_IN_PALETTE:
        return Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint8))
    palette = np.zeros((_LARGEST_IN_PALETTE + 1, 3), np.uint8)
    palette[list(labels)] = colors
    image.putpalette(palette.tobytes())
    return image

"""What trains and what validates: neither a digit nor a pixel of a photograph is in both.

Of a texture the left 65 % of the columns train and the right 35 % validate. Photographs with
writing of their own (page, text, clock) and the second view of motorcycle are left out.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
DIGIT_RANGES: Mapping[Split, range] = {"train": range(1400), "val": range(1400, 1797)}
TEXTURES: tuple[str, ...] = ("brick.png", "grass.png", "gravel.png")
PHOTOS: Mapping[Split, tuple[str, ...]] = {
    "train": (
        *("astronaut.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
        *("motorcycle_left.png", "ihc.png", "camera.png", "color.png"),
    ),
    "val": ("chelsea.png", "retina.jpg", "coins.png"),
}
TEXTURE_CUT = 0.65


def check_split(split: str) -> None:
    """Refuse what is not a split, by a ValueError."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; choose one of {', '.join(SPLITS)}")


def package_folder(package: str) -> Path:
    """Find the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"{package} is not installed: pip install 'eva-toolkit[demo]'", name=package
        )
    return Path(spec.origin).parent

"""detectron2's mapper with the toolkit's decoder of pictures, and for images without objects.

`DatasetMapper` opens files through detectron2's `PathManager`, where a kind of path can be added
from outside: `eva-picture://PATH` is the picture that `read_image` makes of the file, of 8 bits
and upright. detectron2's own reader makes pictures of 16 bits white.
"""

import io
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError, convert_PIL_to_numpy
from detectron2.data.transforms import AugmentationList
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.file_io import PathHandler, PathManager
from numpy.typing import NDArray
from PIL import Image

from eva_data.images import UnreadableImageError, read_image, without_pillow_limit
from eva_detection.data.resizing import Augmentations, TooLongError

_PREFIX = "eva-picture://"


def read_pixels(name: str, *, format: str) -> NDArray[np.uint8]:
    """Read a picture as detectron2's `read_image` does, but through the toolkit's decoder.

    Args:
        name: Path, or another name that detectron2's `PathManager` knows.
        format: Order of the channels, such as "RGB" or "BGR".

    Returns:
        (H, W, 3), upright as its EXIF data say.

    Raises:
        UnreadableImageError: An OSError that names the file.
    """
    pixels: NDArray[np.uint8] = convert_PIL_to_numpy(_read(name), format)
    return pixels


def _read(name: str) -> Image.Image:
    return read_image(PathManager.get_local_path(name), upright=True, name=name)


class _Pictures(PathHandler):
    """Opens `eva-picture://PATH` as a file of plain RGB (PPM)."""

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> io.BytesIO:
        stream = io.BytesIO()
        _read(path.removeprefix(_PREFIX)).save(stream, format="PPM")
        stream.seek(0)
        return stream


PathManager.register_handler(_Pictures())


class PictureMapper(DatasetMapper):
    """detectron2's mapper, reading pictures as everything else in the toolkit does.

    Files that cannot be read raise `UnreadableImageError`, an OSError that names them. A side that
    a resize would round to nothing keeps a pixel.

    Args:
        *args: Arguments of detectron2's class.
        **kwargs: Arguments of detectron2's class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        configured: AugmentationList = vars(self)["augmentations"]
        self.augmentations = Augmentations(configured.augs)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Load and augment an image; see detectron2's class."""
        name = dataset_dict["file_name"]
        try:
            with without_pillow_limit():
                sample = super().__call__({**dataset_dict, "file_name": _PREFIX + name})
        except SizeMismatchError as error:
            raise SizeMismatchError(str(error).replace(_PREFIX, "")) from None
        except TooLongError as error:
            raise UnreadableImageError(f"{name}: {error}") from None
        if sample is not None:
            sample["file_name"] = name
        return sample


class CustomMapper(PictureMapper):
    """detectron2's mapper, also with masks for images without objects, where that one fails."""

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        if any(not one.get("iscrowd", 0) for one in dataset_dict["annotations"]):
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        del dataset_dict["annotations"]
        nothing = Instances(image_shape)
        nothing.gt_boxes = Boxes(torch.zeros(0, 4))
        nothing.gt_classes = torch.zeros(0, dtype=torch.int64)
        if self.use_instance_mask:
            bits = self.instance_mask_format == "bitmask"
            empty = torch.zeros(0, *image_shape, dtype=torch.bool)
            nothing.gt_masks = BitMasks(empty) if bits else PolygonMasks([])
        dataset_dict["instances"] = nothing

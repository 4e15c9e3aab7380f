"""Decodes a picture to RGB: torchvision first, Pillow for what it does not read.

torchvision reads JPEG, PNG, WebP and GIF; Pillow the rest, such as BMP, PPM and TIFF. As in
torchvision's ImageFolder, and so in EVA's pre-training, an orientation that EXIF notes is not
applied, transparency is dropped, and of a moving picture the first frame is taken.
"""

import io
import warnings

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as torchvision_decode

# Of what is read as a picture from folders and shards; torchvision's ImageFolder has the same.
EXTENSIONS = frozenset({"jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"})


class UnreadableImageError(OSError):
    """A picture that cannot be read or decoded; the message names it."""


def decode_image(content: bytes, name: str = "image") -> Tensor:
    """Decode a picture.

    Args:
        content: Of the file.
        name: For the error message.

    Returns:
        (3, height, width) uint8, RGB.

    Raises:
        UnreadableImageError: If neither torchvision nor Pillow can decode it.
    """
    if not content:
        raise UnreadableImageError(f"{name} is empty")
    try:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        image: Tensor = torchvision_decode(data, mode=ImageReadMode.RGB)
    except (RuntimeError, ValueError):
        return _decode_with_pillow(content, name)
    if image.dtype == torch.uint16:  # PNG of 16 bits
        image = (image.to(torch.int32) >> 8).to(torch.uint8)
    return image[0] if image.ndim == 4 else image


def _decode_with_pillow(content: bytes, name: str) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and damaged EXIF data
            with Image.open(io.BytesIO(content)) as image:
                if image.mode.startswith("I"):  # of 16 bits, which convert() would saturate
                    gray = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
                    pixels = np.repeat(gray[..., None], 3, axis=2)
                else:
                    pixels = np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:  # whose message names an object in memory
        raise UnreadableImageError(f"{name} cannot be decoded (no known image format)") from error
    except Exception as error:  # Pillow's decoders raise anything: OSError, SyntaxError, ...
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableImageError(f"{name} cannot be decoded ({reason})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

"""Decodes a picture to RGB: torchvision first, which is faster, and Pillow for the rest.

torchvision reads JPEG, PNG and WebP; `eva_data` everything else. As in torchvision's ImageFolder,
and so in EVA's pre-training, an orientation that EXIF notes is not applied, transparency is
dropped, and of a moving picture the first frame is taken.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as torchvision_decode

from eva_data.pictures import picture_size, read_picture

_GIF = b"GIF8"  # of which torchvision decodes every frame


def decode_image(content: bytes, name: str = "image") -> Tensor:
    """Decode a picture.

    Args:
        content: Of the file.
        name: For the error message.

    Returns:
        (3, height, width) uint8, RGB.

    Raises:
        UnreadableImageError: If neither torchvision nor Pillow can decode it, or it claims more
            pixels than `EVA_MAX_IMAGE_PIXELS`.
    """
    picture_size(content, upright=False, name=name)  # before torchvision allocates what it claims
    if not content.startswith(_GIF):
        try:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            image: Tensor = torchvision_decode(data, mode=ImageReadMode.RGB)
        except (RuntimeError, ValueError):
            pass
        else:
            if image.dtype == torch.uint16:  # PNG of 16 bits
                return (image.to(torch.int32) >> 8).to(torch.uint8)
            return image
    pixels = np.array(read_picture(content, upright=False, name=name))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

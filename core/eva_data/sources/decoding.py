"""Decodes the pictures of pre-training, by the rules of `eva_data.pictures`.

torchvision decodes JPEG, PNG and WebP, which is faster and gives the same pixels; the one decoder
of pictures does the rest.
"""

import torch
from torch import Tensor

from eva_data.pictures import picture_size, read_rgb

_GIF = b"GIF8"  # torchvision decodes every frame of it


def decode_image(content: bytes, name: str = "image") -> Tensor:
    """Decode a picture, as it is stored: EXIF's orientation is not applied.

    Args:
        content: Content of the file.
        name: Its name in messages.

    Returns:
        (3, height, width) uint8, RGB.

    Raises:
        UnreadableImageError: If neither torchvision nor Pillow can decode it, or it claims more
            pixels than `EVA_MAX_IMAGE_PIXELS`.
    """
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as torchvision_decode

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
    return (
        torch.from_numpy(read_rgb(content, upright=False, name=name)).permute(2, 0, 1).contiguous()
    )

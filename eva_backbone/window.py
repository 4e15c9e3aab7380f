"""Cutting a token map into square attention windows and putting it together again (ViTDet).

Shapes: B images, H x W patches, w window side, C channels, n windows of one image.
"""

import torch.nn.functional as F
from torch import Tensor

from eva_backbone.recording import is_traced


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut a map into windows, padding with zeros at the bottom and right where needed.

    As in ViTDet, padded positions take part in the attention of their window.

    Args:
        x: (B, H, W, C).
        window_size: Side w of a window in patches.

    Returns:
        Windows (B * n, w, w, C) and the padded size (H', W') in patches.
    """
    batch, height, width, channels = x.shape
    pad_h = -height % window_size
    pad_w = -width % window_size
    if is_traced() or pad_h or pad_w:  # a trace holds for other sizes too
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (height + pad_h) // window_size, (width + pad_w) // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    x = x.transpose(2, 3)  # (B, rows, columns, w, w, C)
    windows = x.reshape(-1, window_size, window_size, channels)  # (B * n, w, w, C)
    return windows, (height + pad_h, width + pad_w)


def window_unpartition(
    windows: Tensor, window_size: int, padded: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Undo `window_partition`.

    Args:
        windows: (B * n, w, w, C).
        window_size: Side w of a window in patches.
        padded: Padded size (H', W') that `window_partition` returned.
        size: Original size (H, W).

    Returns:
        (B, H, W, C).
    """
    rows, columns = padded[0] // window_size, padded[1] // window_size
    channels = windows.shape[-1]
    x = windows.view(-1, rows, columns, window_size, window_size, channels)
    x = x.transpose(2, 3)  # (B, rows, w, columns, w, C)
    x = x.reshape(-1, padded[0], padded[1], channels)  # (B, H', W', C)
    return x[:, : size[0], : size[1]]

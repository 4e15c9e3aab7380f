import contextlib
import io
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from eva_data.images import LIMIT, UnreadableImageError, inspect_image, read_image

_RNG = np.random.default_rng(0)
_PIXELS = _RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def _png(width, height, *, bits=8, color=2):
    """A PNG file that claims a size and holds nothing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _content(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_file_that_claims_gigabytes_is_refused_before_it_is_decoded(monkeypatch):
    content = _png(65500, 65500)
    message = f"a.png has 65500 x 65500 pixels, more than 100,000,000; .*{LIMIT}=4290250000"
    for read in (partial(read_image, upright=False), partial(inspect_image, decode=False)):
        with pytest.raises(UnreadableImageError, match=message):
            read(content, name="a.png")
    monkeypatch.setenv(LIMIT, "50")
    with pytest.raises(UnreadableImageError, match=r"9 x 6 pixels, more than 50"):
        read_image(_content(Image.fromarray(_PIXELS), "PNG"), upright=True)
    monkeypatch.setenv(LIMIT, "5000000000")
    assert inspect_image(content, decode=False).seen_size == (65500, 65500)


def test_every_cut_of_a_file_is_one_error():
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"):
        content = _content(Image.fromarray(_PIXELS), kind)
        for length in range(0, len(content) * 2 // 3, 7):
            with pytest.raises(UnreadableImageError, match=r"^cut cannot be "):
                read_image(content[:length], upright=True, name="cut")


def test_flipped_bytes_give_a_picture_or_one_error():
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"):
        content = _content(Image.fromarray(_PIXELS), kind)
        for _ in range(60):
            damaged = bytearray(content)
            for place in _RNG.integers(0, len(content), 3):
                damaged[place] = _RNG.integers(0, 256)
            with contextlib.suppress(UnreadableImageError):
                assert read_image(bytes(damaged), upright=True, name="flip").mode == "RGB"

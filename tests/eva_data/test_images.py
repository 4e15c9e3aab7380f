import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from eva_data.checks.folders import inspect
from eva_data.images import LIMIT, UnreadableImageError, image_size, open_image, read_image

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


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_files_without_loss_give_their_pixels(tmp_path, kind):
    file = tmp_path / f"picture.{kind.lower()}"
    Image.fromarray(_PIXELS).save(file, kind)
    for source in (file, str(file), file.read_bytes()):
        picture = read_image(source, upright=True)
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), _PIXELS)
    assert image_size(file, upright=True) == (6, 9)


def test_of_16_bits_the_upper_8_are_kept(tmp_path):
    values = np.linspace(0, 65535, 54).reshape(6, 9).astype(np.uint16)
    for kind in ("png", "tif", "pgm"):
        Image.fromarray(values).save(tmp_path / f"deep.{kind}")
        picture = np.asarray(read_image(tmp_path / f"deep.{kind}", upright=True))
        assert np.array_equal(picture, np.repeat((values >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize(("values", "what"), [(np.int32, "32 bits"), (np.float32, "fractions")])
def test_numbers_without_an_agreed_range_are_refused(tmp_path, values, what):
    Image.fromarray(_PIXELS[..., 0].astype(values)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=rf"a\.tif holds {what} a pixel; save it"):
        read_image(tmp_path / "a.tif", upright=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    picture = Image.fromarray(_PIXELS).convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    read = read_image(_content(picture, kind), upright=True)
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), np.asarray(picture.convert("RGB")))


def test_exif_turns_where_asked_and_sizes_agree():
    exif = Image.Exif()
    exif[274] = 6
    content = _content(Image.fromarray(_PIXELS), "PNG", exif=exif)
    upright = np.asarray(read_image(content, upright=True))
    assert np.array_equal(upright, np.rot90(_PIXELS, -1))
    assert np.array_equal(np.asarray(read_image(content, upright=False)), _PIXELS)
    assert image_size(content, upright=False) == (6, 9)


def test_exif_of_a_photograph_is_read_from_the_header():
    exif = Image.Exif()
    exif[274] = 8
    content = _content(Image.fromarray(_PIXELS), "JPEG", exif=exif)
    assert image_size(content, upright=True) == (9, 6)
    assert image_size(content, upright=False) == (6, 9)


def test_of_a_moving_picture_the_first_frame_is_taken():
    second = Image.fromarray(255 - _PIXELS)
    content = _content(Image.fromarray(_PIXELS), "TIFF", save_all=True, append_images=[second])
    assert np.array_equal(np.asarray(read_image(content, upright=True)), _PIXELS)


def test_a_file_that_claims_gigabytes_is_refused_before_it_is_decoded(monkeypatch):
    content = _png(65500, 65500)
    message = f"a.png has 65500 x 65500 pixels, more than 100,000,000; .*{LIMIT}=4290250000"
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImageError, match=message):
            read(content, upright=False, name="a.png")
    monkeypatch.setenv(LIMIT, "50")
    with pytest.raises(UnreadableImageError, match=r"9 x 6 pixels, more than 50"):
        read_image(_content(Image.fromarray(_PIXELS), "PNG"), upright=True)
    monkeypatch.setenv(LIMIT, "5000000000")
    assert image_size(content, upright=True) == (65500, 65500)


def test_a_limit_that_is_not_a_number_is_the_users_error(monkeypatch, tmp_path):
    monkeypatch.setenv(LIMIT, "1e8")
    picture = Image.fromarray(_PIXELS)
    picture.save(tmp_path / "a.png")
    for read in (
        lambda: read_image(_content(picture, "PNG"), upright=True),
        lambda: image_size(tmp_path / "a.png", upright=True),
        lambda: inspect(tmp_path, "a.png"),
    ):
        with pytest.raises(ValueError, match=f"^{LIMIT} must be a positive .*'1e8'") as caught:
            read()
        assert not isinstance(caught.value, UnreadableImageError)


@pytest.mark.parametrize("bug", [TypeError, KeyError, IndexError, ValueError])
def test_a_bug_of_the_caller_is_not_a_damaged_picture(bug):
    content = _content(Image.fromarray(_PIXELS), "PNG")
    with pytest.raises(bug, match="a bug") as caught, open_image(content, "a.png"):
        raise bug("a bug")
    assert not isinstance(caught.value, UnreadableImageError)


def test_damage_that_the_caller_meets_is_one_sentence():
    content = _content(Image.fromarray(_PIXELS), "PNG")[:-30]
    with (
        pytest.raises(UnreadableImageError, match=r"^cut\.png cannot be read"),
        open_image(content, "cut.png") as picture,
    ):
        picture.load()
    with (
        pytest.raises(UnreadableImageError, match=r"^cut\.png cannot be read"),
        open_image(content, "cut.png", decode=True),
    ):
        pytest.fail("it is damaged")


def test_every_cut_of_a_file_is_one_sentence():
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"):
        content = _content(Image.fromarray(_PIXELS), kind)
        for length in range(0, len(content) * 2 // 3, 7):
            with pytest.raises(UnreadableImageError, match=r"^cut is empty$|^cut cannot be "):
                read_image(content[:length], upright=True, name="cut")


def test_flipped_bytes_give_a_picture_or_one_sentence():
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"):
        content = _content(Image.fromarray(_PIXELS), kind)
        for _ in range(150):
            damaged = bytearray(content)
            for place in _RNG.integers(0, len(content), 3):
                damaged[place] = _RNG.integers(0, 256)
            with contextlib.suppress(UnreadableImageError):
                assert read_image(bytes(damaged), upright=True, name="flip").mode == "RGB"


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("pipe.png", "is a named pipe"), ("missing.png", "is not there")):
        for read in (read_image, image_size):
            with pytest.raises(UnreadableImageError, match=f"{name} {reason}"):
                read(tmp_path / name, upright=True)

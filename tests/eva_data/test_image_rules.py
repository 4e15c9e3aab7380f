"""One file of each kind through the decoder, some through every reader of pictures that has it.

A reader is opened on a plain picture, which then becomes the file in question: what searches
folders or writes an index has done so before.
"""

import dataclasses
import io
import os
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eva_data.images import LIMIT, UnreadableImageError, inspect_image, read_image, read_rgb
from eva_data.transforms import evaluation_transform, without_ends

_RNG = np.random.default_rng(0)
SMOOTH = _RNG.integers(0, 256, (12, 18, 3), dtype=np.uint8)
PIXELS = np.asarray(Image.fromarray(SMOOTH).resize((36, 24)))
GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))
ALPHA = _RNG.integers(0, 256, (24, 36), dtype=np.uint8)
DEEP = _RNG.integers(0, 65536, (24, 36), dtype=np.uint16)


def _encoded(picture, kind, **options):
    stream = io.BytesIO()
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _exif(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def _moving(kind, **options):
    """The picture, and its negative as the next frames."""
    more = [Image.fromarray(255 - PIXELS), Image.fromarray(PIXELS // 2)]
    return _encoded(PIXELS, kind, save_all=True, append_images=more, **options)


def _claim(width, height):
    """A PNG file that claims a size and holds nothing."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + check
    return content


def _by_pillow(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _three(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def _on_white(pixels, alpha):
    picture = Image.fromarray(np.dstack([pixels, alpha]))
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def _good():
    """Name -> content, and pixels as stored."""
    jpeg = _encoded(PIXELS, "JPEG", exif=_exif(6))
    spoilt = _encoded(PIXELS, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01")
    palette = Image.fromarray(PIXELS).quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    cmyk = _encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG")
    rgba = Image.fromarray(np.dstack([PIXELS, ALPHA]))
    grey_alpha = Image.fromarray(np.dstack([GREY, ALPHA]))
    opaque = Image.fromarray(np.dstack([PIXELS, np.full_like(ALPHA, 255)]))
    levels = bytes(range(0, 160, 10))
    of_palette = np.frombuffer(levels, np.uint8)[np.asarray(palette)]
    two = Image.fromarray(GREY).convert("1")
    pierced = PIXELS.copy()
    pierced[:8] = (1, 2, 3)
    hole = 255 * (pierced != (1, 2, 3)).any(axis=2).astype(np.uint8)
    webp = _encoded(rgba, "WEBP", lossless=True, exact=True)
    turned = np.rot90(PIXELS, -1)
    return {
        "JPEG, sideways": (jpeg, _by_pillow(jpeg)),
        "JPEG, damaged EXIF": (spoilt, _by_pillow(_encoded(PIXELS, "JPEG"))),
        "PNG, sideways": (_encoded(PIXELS, "PNG", exif=_exif(6)), PIXELS),
        "TIFF, which Pillow turns": (_encoded(PIXELS, "TIFF", exif=_exif(6)), turned),
        "PNG of 16 bits": (_encoded(DEEP, "PNG"), _three((DEEP >> 8).astype(np.uint8))),
        "palette": (_encoded(palette, "PNG"), colours),
        "palette with transparency": (
            _encoded(palette, "PNG", transparency=levels), _on_white(colours, of_palette)),
        "CMYK": (cmyk, _by_pillow(cmyk)),
        "grey": (_encoded(GREY, "PNG"), _three(GREY)),
        "black and white": (_encoded(two, "PNG"), np.asarray(two.convert("RGB"))),
        "transparency": (_encoded(rgba, "PNG"), _on_white(PIXELS, ALPHA)),
        "opaque alpha": (_encoded(opaque, "PNG"), PIXELS),
        "transparency of WebP": (webp, _on_white(PIXELS, ALPHA)),
        "transparency of grey": (_encoded(grey_alpha, "PNG"), _on_white(_three(GREY), ALPHA)),
        "transparent colour": (
            _encoded(pierced, "PNG", transparency=(1, 2, 3)), _on_white(pierced, hole)),
        "animated GIF": (_moving("GIF"), _by_pillow(_moving("GIF"))),
        "animated WebP": (_moving("WEBP", lossless=True), PIXELS),
        "animated PNG": (_moving("PNG"), PIXELS),
        "PPM": (_encoded(PIXELS, "PPM"), PIXELS),
    }  # fmt: skip


def _upright(name, stored):
    return np.rot90(stored, -1) if "sideways" in name else stored


GOOD = _good()
REFUSED = {  # name -> content and reason
    "fractions": (_encoded(GREY.astype(np.float32), "TIFF"), "holds fractions a pixel; save it"),
    "32 bits": (_encoded(GREY.astype(np.int32), "TIFF"), "holds 32 bits a pixel; save it"),
}
DAMAGED = {
    "JPEG, cut": (_encoded(PIXELS, "JPEG")[:-300], r"cannot be read \(\w+"),
    "PNG, cut": (_encoded(PIXELS, "PNG")[:1000], r"cannot be read \(\w+"),
}
UNOPENED = {
    "huge": (_claim(65500, 65500), f"has 65500 x 65500 pixels, .*{LIMIT}=4290250000"),
    "PNG in name": (b"\x89PNG\r\n\x1a\n broken", r"cannot be (read|decoded) \(\w+"),
    "text": (b"not a picture", r"cannot be decoded \(no known image format\)"),
    "pipe": (os.mkfifo, "is a named pipe and not a file"),
    "folder": (os.mkdir, "is a folder and not a file"),
    "gone": (None, "is not there"),
}


# --- the readers: from a file that is there to a function that gives (H, W, 3) uint8, RGB ---


def _opened(file):
    return Image.open(io.BytesIO(file.read_bytes()))


def _array(tensor):
    return tensor.permute(1, 2, 0).to(torch.uint8).numpy()


def _source(file):
    from eva_data.image_sources import open_images

    images = open_images(file.parent)
    return lambda: _array(images[0])


def _class_folder(file, *, upright=False):
    from eva_data.labelled_images import open_labelled

    samples = open_labelled(file.parent.parent, None, upright=upright)
    return lambda: np.asarray(samples[0][0])


def _named(file):
    from eva_data.labelled_images import NamedImages

    class Rows:  # as a library does, which opens the file
        def __getitem__(self, index):
            return _opened(file), 0

    samples = NamedImages(str(file), Rows(), ["class"], None, upright=False)
    return lambda: np.asarray(samples[0][0])


def _extractor(file):
    from eva_backbone import eva_debug
    from eva_backbone.checkpoints.from_weights import PooledVit
    from eva_classification.features import FeatureExtractor

    pooled = PooledVit(eva_debug(), pooling="mean", image_size=32)
    extractor = FeatureExtractor(pooled, mean=(0.5,) * 3, std=(0.5,) * 3)
    extractor.transform = lambda picture: torch.from_numpy(np.array(picture))
    return lambda: extractor.read(file).numpy()


def _record(file):
    from eva_data.records import Record

    return lambda: np.asarray(Record(str(file), str(file)).image())


def _clip(file, *, given=lambda file: file):
    from eva_contrastive.inference.features import MediaReader

    return lambda: np.asarray(MediaReader(np.asarray).image(given(file)))


def _mapper(file):
    from eva_detection.data.mapper import ImageMapper

    mapper = ImageMapper(is_train=False, augmentations=[], image_format="BGR")
    return lambda: _array(mapper({"file_name": str(file)})["image"].flip(0))


class _SeenError(Exception):
    """What a model was given."""


class _Detector(nn.Module):
    input_format = "RGB"

    def inference(self, batch, do_postprocess):
        raise _SeenError(_array(batch[0]["image"]))


def _seen(run):
    with pytest.raises(_SeenError) as seen:
        run()
    return seen.value.args[0]


def _detector(file):
    from eva_detection.inference.predictor import Predictor

    predictor = Predictor(_Detector(), augmentations=[], categories=[])
    return lambda: _seen(lambda: predictor(file))


def _training_of_segmentation(file):
    from mmseg.registry import TRANSFORMS

    import eva_segmentation.plugin  # noqa: F401

    load = TRANSFORMS.build({"type": "LoadPicture"})
    return lambda: load({"img_path": str(file)})["img"][:, :, ::-1]


class _Segmentor(nn.Module):
    data_preprocessor = None

    def test_step(self, data):
        raise _SeenError(_array(data["inputs"][0].flip(0)))


def _segmentor(file):
    from mmengine.registry import init_default_scope

    import eva_segmentation.plugin  # noqa: F401
    from eva_segmentation.inference.predictor import Predictor

    init_default_scope("mmseg")  # as `Predictor.from_config`
    pack = {"type": "PackSegInputs"}
    predictor = Predictor(_Segmentor(), pipeline=[pack], names=[], colors=[], labels=[])
    return lambda: _seen(lambda: predictor(file))


@dataclasses.dataclass(frozen=True)
class Reader:
    open: Callable
    upright: bool
    decodes_files: bool = True  # and not what its user or another library has opened


READERS = {
    "pre-training": Reader(_source, False),
    "class folder": Reader(_class_folder, False),
    "class folder, upright": Reader(lambda file: _class_folder(file, upright=True), True),
    "named data set": Reader(_named, False, decodes_files=False),
    "FeatureExtractor": Reader(_extractor, True),
    "batch": Reader(_record, True),
    "CLIP, demo": Reader(_clip, True),
    "CLIP, opened": Reader(lambda file: _clip(file, given=_opened), True, decodes_files=False),
    "detection, training": Reader(_mapper, True),
    "detection, Predictor": Reader(_detector, True),
    "segmentation, training": Reader(_training_of_segmentation, True),
    "segmentation, Predictor": Reader(_segmentor, True),
}


@pytest.fixture
def file(tmp_path):
    """Path of a plain picture in a class folder; decoders go by the content, not by its name."""
    folder = tmp_path / "data" / "class"
    folder.mkdir(parents=True)
    (folder / "picture.png").write_bytes(_encoded(PIXELS, "PNG"))
    return folder / "picture.png"


def _place(file, content):
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        content(file)


def compare(read, file, names, *, upright):
    """A reader gives the pixels of these images."""
    for name in names:
        content, stored = GOOD[name]
        _place(file, content)
        pixels = read()
        assert pixels.dtype == np.uint8
        expected = _upright(name, stored) if upright else stored
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of pictures that the test opens
@pytest.mark.parametrize("upright", [False, True])
def test_every_rule_of_the_decoder(file, upright, monkeypatch):
    def read():
        return read_rgb(file, upright=upright)

    compare(read, file, GOOD, upright=upright)
    for content, reason in (*REFUSED.values(), *DAMAGED.values(), *UNOPENED.values()):
        _place(file, content)
        with pytest.raises(UnreadableImageError, match=r"picture\.png " + reason):
            read()
    _place(file, _encoded(PIXELS, "PNG"))
    monkeypatch.setenv(LIMIT, "863")
    with pytest.raises(UnreadableImageError, match=r"36.*24.*863"):
        read()


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_the_decoder(name, file):
    reader = READERS[name]
    read = reader.open(file)
    compare(
        read, file, ["JPEG, sideways", "PNG of 16 bits", "transparency"], upright=reader.upright
    )
    refused = [REFUSED["fractions"][0], DAMAGED["JPEG, cut"][0]]
    refused += [UNOPENED["huge"][0], os.mkfifo] if reader.decodes_files else []
    for content in refused:
        _place(file, content)
        with pytest.raises(UnreadableImageError, match=r"picture\.png|image"):
            read()


def test_shards_hold_what_folders_hold(write_tar, tmp_path):
    from eva_data.image_sources import open_images

    contents = [content for content, _ in GOOD.values()]
    write_tar(tmp_path / "a.tar", [(f"{n}.png", one) for n, one in enumerate(contents)])
    images = open_images(tmp_path / "a.tar")
    for found, (name, (_, stored)) in zip(images, GOOD.items(), strict=False):
        np.testing.assert_array_equal(_array(found), stored, err_msg=name)
    assert len(images) == len(GOOD)


@pytest.mark.parametrize("decode", [False, True])
def test_what_checkers_see_is_what_readers_get(file, decode, monkeypatch):
    for name, (content, stored) in GOOD.items():
        _place(file, content)
        facts = inspect_image(file, decode=decode)
        assert (facts.height, facts.width) == stored.shape[:2], name
        assert facts.animated == ("animated" in name)
        transparent = "transparen" in name or (name == "opaque alpha" and not decode)
        assert facts.transparent == transparent, name
        assert facts.bits == (16 if "16 bits" in name else 8)
        assert facts.seen_size[::-1] == _upright(name, stored).shape[:2], name
    for content, _ in REFUSED.values():
        _place(file, content)
        assert inspect_image(file, decode=decode).bits == 32
    for content, reason in [*(DAMAGED.values() if decode else ()), *UNOPENED.values()]:
        _place(file, content)
        with pytest.raises(UnreadableImageError, match=rf"picture\.png {reason}"):
            inspect_image(file, decode=decode)
    monkeypatch.setenv(LIMIT, "5000000000")
    assert inspect_image(_claim(65500, 65500), decode=False).seen_size == (65500, 65500)


KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_of_a_file_is_one_error(kind):
    content = _encoded(PIXELS[:6, :9], kind)
    for length in range(0, len(content) * 2 // 3, 7):
        with pytest.raises(UnreadableImageError, match=r"^cut cannot be "):
            read_image(content[:length], upright=True, name="cut")


def test_sets_with_published_results_drop_transparency_as_officially(file):
    from eva_data.imagenet import ImageNetPaths, open_sets

    for name in ("0", "1"):
        (file.parent.parent / name).mkdir()
    place = file.parent.parent / "0" / "a.png"
    place.write_bytes(GOOD["transparency"][0])
    file.unlink()
    file.parent.rmdir()
    paths = ImageNetPaths(v2=file.parent.parent)
    (samples,) = open_sets(paths, image_size=32, mean=(0,) * 3, std=(1,) * 3)
    np.testing.assert_array_equal(np.asarray(samples.samples.image(0)), PIXELS)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_a_strip_does_not_fill_the_memory(size):
    transform = evaluation_transform(224, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert transform(Image.new("RGB", size)).shape == (3, 224, 224)
    assert without_ends(Image.new("RGB", size)).size in ((50, 1), (1, 50))
    assert without_ends(Image.new("RGB", (100, 2))).size == (100, 2)

"""Images of bands: every form of file gives the same array, and bad ones are named."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from eva_command.verify import main as verify
from eva_data.band_files import read_bands
from eva_data.bands import BandRequest, Bands, measure_bands
from eva_data.checks.findings import Findings
from eva_data.checks.images import inspect
from eva_data.checks.label_maps import KINDS, Split, check_split
from eva_data.images import UnreadableImageError, read_rgb
from eva_data.label_maps import ClassFile

VALUES = np.random.default_rng(0).integers(0, 65536, (40, 48, 5), dtype=np.uint16)


def _write(file, pixels=VALUES):
    planes = np.moveaxis(pixels, -1, 0)
    if "pages" in file.name:
        with tifffile.TiffWriter(file) as tiff:
            for plane in planes:
                tiff.write(plane, contiguous=False, photometric="minisblack")
    elif "planes" in file.name:
        tifffile.imwrite(file, planes, planarconfig="separate", photometric="minisblack")
    elif file.suffix == ".tif":
        tifffile.imwrite(file, pixels, planarconfig="contig", photometric="minisblack",
                         compression="zlib", predictor=pixels.dtype != np.float32)  # fmt: skip
    elif file.suffix == ".npz":
        np.savez_compressed(file, **{f"band{number}": p for number, p in enumerate(planes)})
    else:
        np.save(file, planes if "first" in file.name else pixels)
    return file


def test_a_pgm_of_12_bits_has_the_values_that_are_stored(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 4095\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_bands(tmp_path / "a.pgm")[..., 0], values)


@pytest.mark.parametrize(
    "name", ["a.tif", "pages.tif", "planes.tif", "a.npy", "first.npy", "a.npz"]
)
def test_each_form_of_file_has_the_values_that_were_written(name, tmp_path):
    pixels = read_bands(_write(tmp_path / name))
    assert pixels.dtype == np.uint16
    assert (pixels == VALUES).all()


def test_overviews_and_usual_images_are_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(VALUES[..., 0], photometric="minisblack")
        tiff.write(VALUES[::2, ::2, 0], photometric="minisblack", subfiletype=1)
    assert (read_bands(tmp_path / "a.tif")[..., 0] == VALUES[..., 0]).all()
    Image.fromarray(VALUES[..., 0]).save(tmp_path / "deep.png")
    assert (read_bands(tmp_path / "deep.png")[..., 0] == VALUES[..., 0]).all()
    Image.fromarray(VALUES[..., :3].astype(np.uint8)).save(tmp_path / "a.bmp")
    assert (read_bands(tmp_path / "a.bmp") == VALUES[..., :3].astype(np.uint8)).all()


def _bad(folder):
    yield _write(folder / "40.tif", np.zeros((20, 20, 40), np.uint16)), "40"
    nan = VALUES.astype(np.float32)
    nan[3, 2, 1] = np.nan
    yield _write(folder / "nan.tif", nan), "nan in band 2"
    with tifffile.TiffWriter(folder / "sizes.tif") as tiff:
        tiff.write(VALUES[..., 0], photometric="minisblack")
        tiff.write(VALUES[:30, :, 0], photometric="minisblack")
    yield folder / "sizes.tif", "30"
    np.savez(folder / "sizes.npz", a=VALUES[..., 0], b=VALUES[:30, :, 0])
    yield folder / "sizes.npz", "30"
    (folder / "cut.tif").write_bytes(_write(folder / "a.tif").read_bytes()[:900])
    yield folder / "cut.tif", "cannot be read"
    np.save(folder / "code.npy", np.array([object()]))
    yield folder / "code.npy", "cannot be read"
    np.save(folder / "words.npy", np.array([["a"]]))
    yield folder / "words.npy", "U1"
    np.save(folder / "line.npy", np.zeros(9))
    yield folder / "line.npy", r"shape \(9"
    tifffile.imwrite(folder / "pages.tif", VALUES[..., :4], photometric="minisblack")
    yield folder / "pages.tif", "40"
    yield folder / "missing.tif", "missing.tif"


def test_bad_files_are_named_with_the_value(tmp_path):
    for file, value in _bad(tmp_path):
        with pytest.raises(UnreadableImageError, match=value) as caught:
            read_bands(file)
        assert file.name in str(caught.value)


def test_settings_are_measured_over_the_files_and_kept(tmp_path):
    files = [_write(tmp_path / f"{n}.npy", VALUES // (n + 1)) for n in range(3)]
    request = BandRequest(count=5, range="p2:p98", show="3,2,1")
    bands = measure_bands(files, request)
    every = np.concatenate([read_bands(file).reshape(-1, 5) for file in files])
    assert np.allclose(bands.low, np.percentile(every, 2, axis=0), rtol=1e-4)
    assert np.allclose(bands.high, np.percentile(every, 98, axis=0), rtol=1e-4)
    scaled = np.concatenate([bands.scale(bands.read(file)).reshape(-1, 5) for file in files]) / 255
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert np.allclose(bands.mean, scaled.mean(axis=0), atol=1e-4)
    assert np.allclose(bands.std, scaled.std(axis=0), atol=1e-4)
    assert Bands.from_json(bands.as_json()) == bands
    drawn = bands.draw(VALUES)
    assert (drawn == np.rint(bands.scale(VALUES)[..., [2, 1, 0]])).all()


def test_numbers_are_taken_as_ranges_without_losing_bits(tmp_path):
    file = _write(tmp_path / "a.npy", np.arange(1024, dtype=np.uint16).reshape(32, 32, 1))
    bands = measure_bands([file], BandRequest(count=1, range="0:1023"))
    assert len(np.unique(bands.scale(bands.read(file)))) == 1024
    assert bands.draw(bands.read(file)).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"count": 33}, "33"),
        ({"count": 5, "range": "9:3"}, "9:3"),
        ({"count": 5, "range": "p1:p101"}, "p101"),
        ({"count": 5, "range": "0:1,0:2"}, "0:1,0:2"),
        ({"count": 5, "range": "low"}, "low"),
        ({"count": 5, "show": "3,2,6"}, "3,2,6"),
        ({"count": 5, "show": "3,2"}, "3,2"),
    ],
)
def test_wrong_settings_are_named(settings, value):
    with pytest.raises(ValueError, match=value):
        BandRequest(**settings)


def test_another_number_of_bands_names_the_file(tmp_path):
    files = [_write(tmp_path / "a.npy"), _write(tmp_path / "four.npy", VALUES[..., :4])]
    with pytest.raises(ValueError, match=r"four.npy.*4.*5"):
        measure_bands(files, BandRequest(count=5))
    bands = measure_bands(files[:1], BandRequest(count=5))
    with pytest.raises(UnreadableImageError, match=r"four.npy.*4.*5"):
        bands.read(files[1])


def test_bands_of_a_run_that_noted_no_range_are_continued(tmp_path):
    request = BandRequest(count=5, range="p1:p99")
    saved = measure_bands([_write(tmp_path / "a.npy")], request).as_json()
    del saved["range"]
    bands = Bands.from_json(saved)
    assert request.fits(bands)
    assert "p1" not in bands.describe()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "pages.tif"])
def test_the_size_of_every_band_is_limited(name, tmp_path, monkeypatch):
    file = _write(tmp_path / name)
    if file.suffix == ".tif":  # in its second page
        with tifffile.TiffWriter(file) as tiff:
            tiff.write(VALUES[:1, :1, 0])
            tiff.write(VALUES[..., 0])
    monkeypatch.setenv("EVA_MAX_IMAGE_PIXELS", str(40 * 48 - 1))
    with pytest.raises(UnreadableImageError, match=r"40.*48.*1,919"):
        read_bands(file)


def _save(file, image, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image.save(file, exif=exif)
    return file


@pytest.mark.parametrize("name", ["grey.jpg", "grey.png", "colours.png", "deep.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_as_in_rgb(name, orientation, tmp_path):
    pixels = np.zeros((16, 24), np.uint8)
    pixels[:8, :8] = 255
    kinds = {"colours": np.dstack([pixels] * 3), "deep": pixels * np.uint16(257)}
    image = Image.fromarray(kinds.get(name.partition(".")[0], pixels))
    file = _save(tmp_path / name, image, orientation)
    _save(tmp_path / "rgb.jpg", Image.fromarray(np.dstack([pixels] * 3)), orientation)
    expected = read_rgb(tmp_path / "rgb.jpg", upright=True)[..., 0] > 127
    bands = read_bands(file)
    assert ((bands[..., 0] > bands.max() // 2) == expected).all()


@pytest.mark.parametrize("suffix", ["tif", "bmp"])
def test_one_bit_is_a_band_of_0_and_1(suffix, tmp_path):
    values = np.eye(16, dtype=bool)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_bands(tmp_path / f"a.{suffix}", count=1)[..., 0], values)


def test_a_palette_and_a_turned_tiff_are_refused(tmp_path):
    Image.fromarray(VALUES[..., :3].astype(np.uint8)).quantize(8).save(tmp_path / "palette.png")
    Image.open(tmp_path / "palette.png").save(tmp_path / "palette.tif")
    for name in ("palette.png", "palette.tif"):
        with pytest.raises(UnreadableImageError, match=f"{name}.*palette"):
            read_bands(tmp_path / name)
    tifffile.imwrite(tmp_path / "turned.tif", VALUES[..., 0], extratags=[(274, "H", 1, 6)])
    with pytest.raises(UnreadableImageError, match=r"turned.tif.*6"):
        read_bands(tmp_path / "turned.tif")


def test_arrays_of_npz_are_in_the_order_of_their_names(tmp_path):
    planes = {f"band{number}": np.full((4, 6), number) for number in (10, 2, 1)}
    np.savez(tmp_path / "a.npz", **planes)
    assert read_bands(tmp_path / "a.npz")[0, 0].tolist() == [1, 2, 10]


def test_bands_of_a_small_array_are_its_shorter_axis_or_as_many_as_stated(tmp_path):
    np.save(tmp_path / "first.npy", np.moveaxis(VALUES[:28, :28], -1, 0))
    assert (read_bands(tmp_path / "first.npy") == VALUES[:28, :28]).all()
    np.save(tmp_path / "low.npy", VALUES[:4])  # 4 pixels high, 5 bands
    bands = measure_bands([tmp_path / "low.npy"], BandRequest(count=5))
    assert (bands.read(tmp_path / "low.npy") == VALUES[:4]).all()


def test_narrow_ranges_far_from_0_are_kept(tmp_path):
    steps = np.linspace(0, 0.5, 1024).reshape(32, 32, 1)
    np.save(tmp_path / "a.npy", 1234567 + steps)
    bands = measure_bands([tmp_path / "a.npy"], BandRequest(count=1, range="p0:p100"))
    assert np.allclose(bands.scale(bands.read(tmp_path / "a.npy")), 510 * steps, atol=1e-3)
    np.save(tmp_path / "same.npy", np.full((8, 8, 1), 3e9, np.float32))
    bands = measure_bands([tmp_path / "same.npy"], BandRequest(count=1))
    assert (bands.scale(bands.read(tmp_path / "same.npy")) == 0).all()


def test_measuring_needs_little_more_memory_than_the_values(tmp_path):
    file = _write(tmp_path / "a.npy", np.zeros((40, 48, 32), np.uint16))
    tracemalloc.start()
    measure_bands([file] * 200, BandRequest(count=32))  # 49 MB in float32
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()


def test_arrays_of_8_bits_are_refused_by_a_model_of_larger_values(tmp_path):
    bands = measure_bands([_write(tmp_path / "a.npy", VALUES[..., :3])], BandRequest(count=3))
    with pytest.raises(UnreadableImageError, match=r"uint8.* 6\d{4}"):
        bands.read((VALUES[..., :3] >> 8).astype(np.uint8))


def test_checks_of_images_say_what_trains_on_32_bits(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES[..., 0].astype(np.float32))
    assert "--bands" in inspect(tmp_path, "a.tif").problem
    images, maps, findings = tmp_path, tmp_path / "maps", Findings(KINDS)
    maps.mkdir()
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(maps / "a.png")
    classes = ClassFile(names=("a",), labels=(0,), colors=((0, 0, 0),))
    check_split(Split(images, maps), classes, findings, workers=1, decode=True)
    assert "--bands" in findings.table()


def test_verify_counts_bands_and_finds_what_is_not_finite(tmp_path, capsys):
    folder = tmp_path / "data" / "kind"
    folder.mkdir(parents=True)
    _write(folder / "a.npy")
    words = ["folders", str(tmp_path / "data"), "--bands", "5", "--workers", "1"]
    assert verify(words) == 0
    bad = VALUES.astype(np.float32)
    bad[3, 2, 1] = np.nan
    _write(folder / "nan.npy", bad)
    _write(folder / "four.npy", VALUES[..., :4])
    assert verify(words) == 1
    printed = capsys.readouterr().out
    assert "four.npy: it has 4 bands, and not 5" in printed
    assert "2 problems" in printed  # NaN, too

"""The predictor, overlays, label maps, and the file for the ADE20K server."""

import zipfile

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image

from eva_segmentation import demo
from eva_segmentation.drawing import label_image, overlay, with_legend
from eva_segmentation.predictor import Predictor

COLORS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


class Stripes:
    """A segmentor of 150 classes without a model: the class is the row."""

    names = tuple(f"class {index}" for index in range(150))
    colors = tuple((index, 0, 255 - index) for index in range(150))
    labels = tuple(range(1, 151))

    def __call__(self, rgb):
        rows = np.arange(rgb.shape[0], dtype=np.uint8)[:, None]
        return np.repeat(rows, rgb.shape[1], axis=1)


@pytest.fixture
def pictures(tmp_path):
    """A folder with two pictures, one of them below a folder, and a broken file."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 30), (9, 200, 9)).save(folder / "a.jpg")
    Image.new("RGB", (20, 50), (9, 9, 200)).save(folder / "sub" / "b.webp")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, load_config):
    """A file with random weights of the demo's segmentor."""
    torch.manual_seed(0)
    model = MODELS.build(load_config("demo/mask2former_eva_debug").model)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return path


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_predictor_of_a_config(configs, weights, pictures):
    config = configs / "demo" / "mask2former_eva_debug.py"
    predictor = Predictor.from_config(config, weights=weights, device="cpu")
    assert predictor.names == ("brick", "grass", "gravel", "other", "digit")
    assert predictor.labels == (1, 2, 3, 4, 5)
    assert predictor.colors[4] == (252, 200, 20)
    found = predictor(pictures / "a.jpg")
    assert (found.shape, found.dtype) == ((30, 40), np.uint8)
    assert found.max() < 5
    rgb = np.asarray(Image.open(pictures / "a.jpg"))
    np.testing.assert_array_equal(found, predictor(rgb))
    np.testing.assert_array_equal(found, predictor(Image.fromarray(rgb)))
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) RGB in uint8, got \(4, 4\)"):
        predictor(np.zeros((4, 4), np.uint8))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_predictor_at_several_scales(configs, weights, pictures):
    config = configs / "demo" / "mask2former_eva_debug.py"
    predictor = Predictor.from_config(config, weights=weights, device="cpu", multi_scale=True)
    seen = []
    step = predictor.model.module.test_step
    predictor.model.module.test_step = lambda data: seen.append(data) or step(data)
    assert predictor(pictures / "a.jpg").shape == (30, 40)
    assert len(seen) == 6
    blue, _, red = seen[0]["inputs"][0][:, 0, 0].tolist()
    np.testing.assert_allclose([red, blue], [9, 9], atol=3)
    image = np.full((30, 40, 3), (200, 9, 90), np.uint8)  # red must not become blue
    predictor(image)
    assert seen[6]["inputs"][0][:, 0, 0].tolist() == [90, 9, 200]


def test_overlay_and_legend():
    rgb = np.full((60, 40, 3), 100, np.uint8)
    classes = np.zeros((60, 40), np.uint8)
    classes[:10] = 2
    painted = overlay(rgb, classes, COLORS, opacity=0.5)
    assert painted[0, 0].tolist() == [50, 50, 175]
    assert painted[-1, 0].tolist() == [175, 50, 50]
    np.testing.assert_array_equal(overlay(rgb, classes, COLORS, opacity=0), rgb)
    drawn = with_legend(painted, classes, ("sky", "road", "tree"), COLORS)
    np.testing.assert_array_equal(drawn[:60, :40], painted)
    beside = drawn[:, 40:].reshape(-1, 3).tolist()
    first, last = beside.index([250, 0, 0]), beside.index([0, 0, 250])
    assert first < last  # the largest share on top
    assert [0, 250, 0] not in beside  # no pixel has it
    many = np.arange(60, dtype=np.uint8)[:, None].repeat(40, 1)
    tall = with_legend(rgb, many, [f"class {i}" for i in range(60)], [(i, i, i) for i in range(60)])
    assert tall.shape[0] > 60 * 11


def test_label_images_can_be_read_back(tmp_path):
    classes = np.array([[0, 1], [2, 2]], np.uint8)
    for labels, mode in (((7, 0, 255), "P"), ((7, 1, 400), "I;16")):
        label_image(classes, labels, COLORS).save(tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as stored:
            assert stored.mode == mode
            np.testing.assert_array_equal(np.asarray(stored), np.array(labels)[classes])
            if mode == "P":
                assert stored.convert("RGB").getpixel((0, 0)) == COLORS[0]


def test_a_folder_is_segmented(pictures, tmp_path):
    output = tmp_path / "out"
    (pictures / "broken.png").write_bytes(b"no picture")
    jobs, problems = demo.plan([pictures, tmp_path / "none"], output)
    assert problems == [f"there is no {tmp_path / 'none'}"]
    (problem,) = demo.run(Stripes(), jobs)
    assert "broken.png as an image" in problem
    files = sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())
    assert files == [
        "labels/a.png",
        "labels/sub/b.png",
        "overlays/a.jpg",
        "overlays/sub/b.webp.png",
    ]
    with Image.open(output / "labels" / "sub" / "b.png") as stored:
        assert stored.size == (20, 50)
        assert np.asarray(stored)[:, 0].tolist() == list(range(1, 51))
    again, _ = demo.plan([tmp_path], output)
    assert len(again) == 3  # results are no inputs


def test_the_file_for_the_server(pictures, tmp_path):
    jobs, _ = demo.plan([pictures], tmp_path / "out")
    file = tmp_path / "test.zip"
    assert demo.run(Stripes(), jobs, submission=file) == []
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["a.png", "b.png"]
        with archive.open("b.png") as stream, Image.open(stream) as stored:
            assert (stored.mode, stored.size) == ("L", (20, 50))
            assert np.asarray(stored)[:, 3].tolist() == list(range(1, 51))


def test_no_file_for_the_server_if_a_picture_is_missing(pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"no picture")
    jobs, _ = demo.plan([pictures], tmp_path / "out")
    file = tmp_path / "test.zip"
    assert len(demo.run(Stripes(), jobs, submission=file)) == 1
    assert not list(tmp_path.glob("*test.zip*"))


def test_refusals(pictures, tmp_path, capsys, configs, weights):
    config = str(configs / "demo" / "mask2former_eva_debug.py")
    Image.new("RGB", (4, 4)).save(pictures / "a.png")

    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            demo.main([config, str(weights), *map(str, arguments)])
        assert stop.value.code == 2
        return capsys.readouterr().err

    output = ("--output", tmp_path / "out")
    assert "a.jpg and" in refused(pictures, *output)
    (pictures / "a.png").unlink()
    archive = ("--ade20k-submission", tmp_path / "x.zip")
    assert "needs a model of 150 classes" in refused(pictures, *output, *archive)
    (tmp_path / "out" / "labels").mkdir(parents=True)
    (tmp_path / "out" / "labels" / "a.png").write_text("old")
    assert "is there already: give --overwrite" in refused(pictures, *output)
    assert "must be in [0, 1], got 2" in refused(pictures, *output, "--opacity", "2")
    assert not list(tmp_path.glob("*x.zip*"))

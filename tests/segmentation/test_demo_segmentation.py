"""The predictor, images and label maps of the demo, and the file for the ADE20K server."""

import zipfile

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from eva_data.images import read_rgb
from eva_segmentation.inference import demo
from eva_segmentation.inference.predictor import Predictor


class Stripes:
    """A segmentor of 150 classes without a model: the class is the row."""

    names = tuple(f"class {index}" for index in range(150))
    colors = tuple((index, 0, 255 - index) for index in range(150))
    labels = tuple(range(1, 151))

    def read_image(self, source):
        return read_rgb(source, upright=True)

    def draw_image(self, rgb):
        return rgb

    def predict(self, rgb):
        rows = np.arange(rgb.shape[0], dtype=np.uint8)[:, None]
        return np.repeat(rows, rgb.shape[1], axis=1)


@pytest.fixture
def images(tmp_path):
    """A folder with two images, one of them below a folder."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 30), (9, 200, 9)).save(folder / "a.jpg")
    Image.new("RGB", (20, 50), (9, 9, 200)).save(folder / "sub" / "b.webp")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, load_config):
    """A file with random weights of the demo's segmentor."""
    init_default_scope("mmseg")
    torch.manual_seed(0)
    init_default_scope("mmseg")  # before the fixture that sets it for each test
    model = MODELS.build(load_config("demo/mask2former_eva_debug").model)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return path


@pytest.fixture
def stripes(monkeypatch):
    """Function: the entire command, with a segmentor of 150 classes that needs no model."""
    monkeypatch.setattr(Predictor, "from_config", lambda *_, **__: Stripes())
    return lambda *arguments: demo.main(
        ["mask2former_eva_debug", "eva_debug", *map(str, arguments)]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_predictor_at_several_scales(configs, weights, images):
    config = configs / "demo" / "mask2former_eva_debug.py"
    predictor = Predictor.from_config(config, weights=weights, device="cpu", multi_scale=True)
    seen = []
    step = predictor.model.module.test_step
    predictor.model.module.test_step = lambda data: seen.append(data) or step(data)
    image = np.full((30, 40, 3), (200, 9, 90), np.uint8)  # red must not become blue
    assert predictor(image).shape == (30, 40)
    assert len(seen) == 6
    assert seen[0]["inputs"][0][:, 0, 0].tolist() == [90, 9, 200]


def test_the_file_for_the_server_is_complete_or_not_written(stripes, images, tmp_path, capsys):
    archive = tmp_path / "test.zip"
    archive.write_bytes(b"earlier")
    command = (images, "--output", tmp_path / "out", "--ade20k-submission", archive, "--overwrite")
    (images / "broken.png").write_bytes(b"no image")
    assert stripes(*command) == 1
    assert "broken.png" in capsys.readouterr().err
    assert archive.read_bytes() == b"earlier"
    (images / "broken.png").unlink()
    stripes(*command)
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == ["a.png", "b.png"]
        with file.open("b.png") as stream, Image.open(stream) as stored:
            assert (stored.mode, stored.size) == ("L", (20, 50))
            assert np.asarray(stored)[:, 3].tolist() == list(range(1, 51))

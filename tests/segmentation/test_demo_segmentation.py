"""The predictor, pictures and label maps of the demo, and the file for the ADE20K server."""

import functools
import os
import zipfile

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image

from eva_data.images import UnreadableImageError, read_rgb
from eva_data.label_maps import find_pairs, read_label_map
from eva_segmentation.inference import demo
from eva_segmentation.inference.predictor import Predictor


class Stripes:
    """A segmentor of 150 classes without a model: the class is the row."""

    names = tuple(f"class {index}" for index in range(150))
    colors = tuple((index, 0, 255 - index) for index in range(150))
    labels = tuple(range(1, 151))

    def classes_of(self, rgb):
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


def test_pipes_loops_and_huge_pictures(pictures, tmp_path, monkeypatch):
    os.mkfifo(pictures / "pipe.png")
    (pictures / "sub" / "loop").symlink_to(pictures)
    jobs, problems = demo.plan([pictures], tmp_path / "out")
    assert [job.source.name for job in jobs] == ["a.jpg", "b.webp"]
    assert not problems
    with pytest.raises(UnreadableImageError, match=r"pipe\.png is a named pipe and not"):
        read_rgb(pictures / "pipe.png", upright=True)
    with pytest.raises(ValueError, match=r"pipe\.png as a label map: .* is a named pipe"):
        read_label_map(pictures / "pipe.png")
    monkeypatch.setenv("EVA_MAX_IMAGE_PIXELS", "1199")
    message = r"a\.jpg has 40 x 30 pixels, more than 1,199; if it is meant"
    with pytest.raises(UnreadableImageError, match=message):
        read_rgb(pictures / "a.jpg", upright=True)


def test_pairs_meet_pipes_and_loops(tmp_path):
    for kind in ("images", "maps"):
        (tmp_path / kind / "sub").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / kind / "sub" / "a.png")
        os.mkfifo(tmp_path / kind / "pipe.png")
        (tmp_path / kind / "sub" / "loop").symlink_to(tmp_path / kind)
    pairs, lonely, unused = find_pairs(tmp_path / "images", tmp_path / "maps")
    assert [pair.image.relative_to(tmp_path).as_posix() for pair in pairs] == ["images/sub/a.png"]
    assert not lonely
    assert not unused


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
    first, second = predictor([rgb, pictures / "sub" / "b.webp"])
    np.testing.assert_array_equal(found, first)
    pairs = dict(predictor(str(pictures / "**" / "*.webp")))
    np.testing.assert_array_equal(pairs[pictures / "sub" / "b.webp"], second)
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


def test_a_folder_is_segmented(pictures, tmp_path):
    output = tmp_path / "out"
    (pictures / "broken.png").write_bytes(b"no picture")
    jobs, problems = demo.plan([pictures, tmp_path / "none"], output)
    assert problems == [f"there is no {tmp_path / 'none'}"]
    (problem,) = demo.run(Stripes(), jobs)
    assert "broken.png cannot be decoded" in problem
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


def test_what_was_found_is_said_and_a_file_twice_is_done_once(pictures, tmp_path, capsys):
    jobs, _ = demo.plan([pictures / "a.jpg", pictures / "*.jpg"], tmp_path / "out")
    assert demo.run(Stripes(), jobs) == []
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("a.jpg: class 0 3 %, class 1 3 %")
    assert line.endswith("20 more classes")


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


@pytest.fixture
def refused(capsys):
    """Function: what the program says to a wrong command line, without its usage."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            demo.main([*map(str, arguments)])
        assert stop.value.code == 2
        return capsys.readouterr().err.rpartition("demo.py: error: ")[2]

    return run


def test_refusals(pictures, tmp_path, configs, weights, refused):
    refused = functools.partial(refused, configs / "demo" / "mask2former_eva_debug.py", weights)
    Image.new("RGB", (4, 4)).save(pictures / "a.png")
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


def test_what_is_no_config_device_or_folder_is_named(
    tiny_run, pictures, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config, weights = tiny_run / "run" / "tiny.py", tiny_run / "run" / "iter_3.pth"
    picture, output = pictures / "a.jpg", ("--output", tmp_path / "out")
    (tmp_path / "file").write_text("text")
    (tmp_path / "bare.json").write_text('{"optimizer": {"lr": 1}}')
    refusals = {
        (config, weights, picture, "--output", tmp_path / "file"): "file is a file and would have",
        (config, weights, picture, *output, "--device", "bla"): "device 'bla' must be cpu, cuda",
        (config, weights, picture, *output, "--device", "cuda"): "device 'cuda': there are 0 GPUs",
        (picture, weights, picture, *output): "a.jpg",
        (tmp_path / "bare.json", weights, picture, *output): "has no model and test_dataloader",
        (config, "none.pth", picture, *output): "none.pth",
    }
    for arguments, message in refusals.items():
        text = refused(*arguments)
        assert message in text
        assert len(text.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_text() == "text"


def test_a_picture_that_cannot_be_segmented_is_named_and_the_others_are_done(
    tiny_run, pictures, tmp_path, launch
):
    Image.new("RGB", (2000, 3)).save(pictures / "narrow.png")
    (pictures / "torn.png").write_bytes((pictures / "narrow.png").read_bytes()[:50])
    output = tmp_path / "out"
    run = tiny_run / "run"
    arguments = (run / "tiny.py", run / "iter_3.pth", pictures, "--output", output)
    with pytest.raises(SystemExit) as stop:
        launch(demo, *arguments, "--device", "cpu")
    message = str(stop.value.code)  # a text: Python then ends with exit code 1
    assert "torn.png" in message
    assert len(message.splitlines()) == 2
    found = sorted({path.name for path in output.rglob("*.*")})
    assert found == ["a.jpg", "a.png", "b.png", "b.webp.png", "narrow.png"]


def test_help_imports_nothing_heavy(help_of):
    heavy = ("torch", "mmseg", "mmcv", "cv2")
    assert "overlays/" in help_of("eva_segmentation.inference.demo", *heavy)


@pytest.fixture
def stripes(monkeypatch):
    """Function: the entire command, with a segmentor of 150 classes that needs no model."""
    monkeypatch.setattr(Predictor, "from_config", lambda *_, **__: Stripes())
    return lambda *arguments: demo.main(
        ["mask2former_eva_debug", "eva_debug", *map(str, arguments)]
    )


def test_an_earlier_file_for_the_server_is_not_taken_for_a_new_one(
    stripes, pictures, tmp_path, caplog
):
    archive = tmp_path / "test.zip"
    archive.write_bytes(b"earlier")
    command = (pictures, "--output", tmp_path / "out", "--ade20k-submission", archive)
    (pictures / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="not everything could be read"):
        stripes(*command, "--overwrite")
    assert "test.zip was not written, because pictures are missing" in caplog.text
    assert archive.read_bytes() == b"earlier"
    (pictures / "broken.png").unlink()
    caplog.clear()
    stripes(*command, "--overwrite")
    assert "was not written" not in caplog.text
    assert zipfile.is_zipfile(archive)


def test_pictures_below_the_output_are_segmented_but_results_are_not(stripes, tmp_path):
    project = tmp_path / "proj"
    (project / "frames").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(project / "frames" / "1.jpg")
    for inputs in (project / "frames", project):
        stripes(inputs, "--output", project, "--overwrite")
    names = sorted(path.relative_to(project).as_posix() for path in project.rglob("*.*"))
    assert names == [
        "frames/1.jpg",
        "labels/1.png",
        "labels/frames/1.png",
        "overlays/1.jpg",
        "overlays/frames/1.jpg",
    ]


def test_two_pictures_with_one_overlay_are_refused(pictures, tmp_path, refused):
    Image.new("RGB", (4, 4)).save(pictures / "sub" / "b.webp.png")
    text = refused("mask2former_eva_debug", "eva_debug", pictures, "--output", tmp_path / "out")
    assert "b.webp and " in text
    assert "would both become" in text
    assert "overlays/sub/b.webp.png: give the folder" in text

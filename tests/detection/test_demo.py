"""The demo: what it finds, writes, refuses and skips; complete runs as a program."""

import functools
import json
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from eva_data.files import UnwritableError
from eva_data.inputs import Job
from eva_data.video.streams import CameraReader, VideoReader
from eva_detection import command_line
from eva_detection.inference.predictor import Category, as_coco, detect_jobs
from eva_report.detection_demo import writing_predictions

CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
SIZE = {"height": 40, "width": 60}
CATEGORIES = (Category(3, "cat"), Category(7, "dog"))
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def _instances(size=(40, 60), masks=True):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor([[5.0, 5.0, 25.0, 35.0], [30.0, 10.0, 50.0, 20.0]]))
    found.scores = torch.tensor([0.9, 0.6])
    found.pred_classes = torch.tensor([1, 0])
    if masks:
        found.pred_masks = torch.zeros(2, *size, dtype=torch.bool)
        found.pred_masks[0, 10:30, 10:20] = True
    return found


def _coded(found):
    masks = [np.asfortranarray(mask, dtype=np.uint8) for mask in found.pred_masks.numpy()]
    found.remove("pred_masks")
    codes = [rle.encode(mask) for mask in masks]
    found.pred_masks_rle = [code | {"counts": code["counts"].decode()} for code in codes]
    return found


def _fail_within(writer, *something, **more):
    with writer as opened:
        opened.add(*something, **more)
        raise KeyError


def _jobs(folder, *names):
    return [Job(folder / name, name, (folder / "out" / name,)) for name in names]


# --- pictures and predictions ---


def test_predictions_file_is_a_coco_file(tmp_path, capsys):
    file = tmp_path / "predictions.json"
    with writing_predictions(file, dict(CATEGORIES)) as predictions:
        predictions.add(as_coco(_instances()), file_name="a.jpg", **SIZE)
        predictions.add(as_coco(_instances(masks=False)), file_name="film.mp4", frame=0, **SIZE)
        assert not file.exists()
    coco = COCO(str(file))
    assert coco.loadImgs([1, 2]) == [
        {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40},
        {"id": 2, "file_name": "film.mp4", "width": 60, "height": 40, "frame": 0},
    ]
    assert coco.loadCats([7])[0]["name"] == "dog"
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert first["category_id"] == 7
    assert first["bbox"] == [5, 5, 20, 30]
    assert first["score"] == pytest.approx(0.9)
    assert first["area"] == rle.decode(first["segmentation"]).sum() == 200
    assert (second["category_id"], second["area"], second["iscrowd"]) == (3, 0, 0)
    boxes = coco.loadAnns(coco.getAnnIds(imgIds=2))
    assert [box["area"] for box in boxes] == [600, 200]
    assert "segmentation" not in boxes[0]
    assert list(tmp_path.iterdir()) == [file]
    with writing_predictions(tmp_path / "coded.json", dict(CATEGORIES)) as predictions:
        predictions.add(as_coco(_coded(_instances())), file_name="a.jpg", **SIZE)
    coded = COCO(str(tmp_path / "coded.json"))
    assert coded.anns == {key: coco.anns[key] for key in (1, 2)}


def test_predictions_file_without_images_or_after_an_error(tmp_path):
    with writing_predictions(tmp_path / "none.json", dict(CATEGORIES)):
        pass
    written = json.loads((tmp_path / "none.json").read_text())
    assert written["annotations"] == written["images"] == []
    with pytest.raises(KeyError):
        _fail_within(
            writing_predictions(tmp_path / "b.json", dict(CATEGORIES)),
            as_coco(_instances()), file_name="a", **SIZE,
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["none.json"]


# --- what it says ---


class Finds:
    """A detector that finds a dog and a cat, or nothing."""

    categories, class_names, score_threshold = CATEGORIES, ("cat", "dog"), 0.5

    def __init__(self, anything=True):
        self.anything, self.asked = anything, 0

    def with_encoded_masks(self, image):
        found = _instances(image.shape[:2], masks=False)
        return found if self.anything else found[found.scores > 1]

    def best_score(self, image):
        self.asked += 1
        return 0.1 * self.asked


def test_it_says_what_it_found(tmp_path, write_video, capsys):
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    write_video(tmp_path / "film.mp4", 3, range(3))
    jobs = _jobs(tmp_path, "a.png", "film.mp4")
    assert detect_jobs(Finds(), jobs, tmp_path / "out") == []
    assert capsys.readouterr().out.splitlines() == [
        "a.png: 1 cat, 1 dog",
        "film.mp4: 3 frames: 3 cat, 3 dog",
        "1 image and 1 video (3 frames): 8 objects: 4 cat, 4 dog",
        f"output   {tmp_path / 'out'} (pictures, videos and predictions.json)",
    ]
    nothing = Finds(anything=False)
    detect_jobs(nothing, jobs, tmp_path / "out")
    assert capsys.readouterr().out == (
        "1 image and 1 video (3 frames): nothing at 0.5; the best score is 0.40: "
        "lower --score-threshold, with --overwrite\n"
        f"output   {tmp_path / 'out'} (pictures, videos and predictions.json)\n"
    )
    assert nothing.asked == 4


def test_a_camera_is_recorded(tmp_path, monkeypatch, capsys):
    pattern = functools.partial(
        CameraReader, "testsrc=size=64x48:rate=10:duration=0.2", kind="lavfi"
    )
    monkeypatch.setattr("eva_report.demos.CameraReader", lambda device: pattern())
    job = Job(Path("/dev/video0"), "camera-0.mp4", (tmp_path / "camera-0.mp4",))
    assert detect_jobs(Finds(), [job], tmp_path) == []
    assert capsys.readouterr().out == (
        "camera-0.mp4: 2 frames: 2 cat, 2 dog\n"
        f"output   {tmp_path} (pictures, videos and predictions.json)\n"
    )
    assert len(list(VideoReader(tmp_path / "camera-0.mp4"))) == 2


# --- the program ---


@pytest.fixture(scope="module")
def weights(make_tiny_detector, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(0)
    torch.save({"model": make_tiny_detector().state_dict()}, file)
    return file


@pytest.fixture
def run_demo(start, repository, tiny_overrides, weights):
    """Function: start the demo with the tiny detector; it finds something everywhere."""

    def run(*arguments, wait=True):
        always = ("--config-file", str(repository / CONFIG), "--weights", str(weights))
        threshold = ("--score-threshold", "0.08", "--device", "cpu")
        process = start(
            str(repository / "detection/demo.py"), *always, *threshold, *map(str, arguments),
            "--opts", *tiny_overrides,
        )  # fmt: skip
        return process.wait(100), process.log.read_text(errors="replace")

    return run


def test_whole_run(run_demo, demo_data, tmp_path, write_video):
    """Good and bad inputs; then the same again, refused and with --overwrite."""
    scenes = sorted((demo_data / "digit_scenes/coco/val").iterdir())
    folder = tmp_path / "in"
    _touch(folder, "broken.jpg", "sub/scene.jpg")
    (folder / "sub/scene.jpg").write_bytes(scenes[0].read_bytes())
    Image.fromarray(np.zeros((20, 300, 3), np.uint8)).save(folder / "wide.bmp")
    write_video(folder / "film.mp4", 3, range(3))
    (folder / "broken.mp4").write_bytes(b"none" * 100)
    output = tmp_path / "out"
    arguments = (folder, tmp_path / "missing.png", "--output", output)
    code, text = run_demo(*arguments)
    assert code == 1, text
    last = text[text.index("not everything could be read") :]
    for name in ("broken.jpg", "broken.mp4", "missing.png"):
        assert name in last
    assert "Traceback" not in text
    assert "\nsub/scene.jpg: " in text
    assert "\n2 images and 1 video (3 frames): " in text
    assert f"\noutput   {output}" in text
    assert not re.search(r"^(INFO|usage)", text, re.MULTILINE)
    written = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert written == {"sub/scene.jpg", "wide.bmp.png", "film.mp4", "predictions.json"}
    with Image.open(output / "wide.bmp.png") as picture:
        assert picture.size == (600, 40)
    film = VideoReader(output / "film.mp4")
    assert len(list(film)) == 3
    found = json.loads((output / "predictions.json").read_text())
    assert [image["file_name"] for image in found["images"]] == [
        *["film.mp4"] * 3,
        "sub/scene.jpg",
        "wide.bmp",
    ]
    assert [image.get("frame") for image in found["images"]] == [0, 1, 2, None, None]
    assert [category["name"] for category in found["categories"]] == list("0123456789")
    assert found["annotations"]
    assert all(annotation["score"] >= 0.08 for annotation in found["annotations"])

    before = (output / "predictions.json").stat().st_mtime_ns
    code, text = run_demo(*arguments)
    assert code == 2
    assert "is there already: give --overwrite" in text
    assert (output / "predictions.json").stat().st_mtime_ns == before
    twice = (scenes[1], demo_data / "digit_scenes/coco/val/00000[2].jpg")
    code, text = run_demo(*twice, "--output", output, "--overwrite")
    assert code == 0, text
    assert len(json.loads((output / "predictions.json").read_text())["images"]) == 1


def test_weights_that_are_not_there(run_demo, demo_data, tmp_path):
    scene = next((demo_data / "digit_scenes/coco/val").iterdir())
    code, text = run_demo(scene, "--output", tmp_path / "out", "--weights", "nowhere.pth")
    assert code == 2
    assert text.startswith("demo.py: error: there is no file 'nowhere.pth'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        *((f"--score-threshold={text}", "--score-threshold") for text in ("1.5", "-0.1", "much")),
    ],
)
def test_numbers_are_checked(option, message, capsys):
    arguments = ["a.jpg", "--config-file", "c.py", "--weights", "w", "--output", "o"]
    with pytest.raises(SystemExit) as stopped:
        command_line.demo([*arguments, option])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_weights_of_a_run_and_its_config(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    run = tmp_path / "run"
    run.mkdir()

    def end(*arguments):
        with pytest.raises(SystemExit) as stopped:
            command_line.demo([*map(str, arguments), "--output", str(tmp_path / "out")])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    assert "--weights" in end(tmp_path / "a.jpg")
    assert "--weights" in end(run, tmp_path / "a.jpg")
    assert f"config.yaml of a training lies with {run}" in end(tmp_path / "a.jpg", "--weights", run)
    assert "no config.yaml" in end(tmp_path / "a.jpg", "--weights", "eva_coco_seg.pth")
    recipe = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    assert "eva_debug holds a backbone" in end(recipe, "eva_debug", tmp_path / "a.jpg")
    (run / "config.yaml").write_text("")
    for arguments in ((run, tmp_path / "a.jpg"), (tmp_path / "a.jpg", "--weights", run)):
        assert "run' is a folder without weights of a run" in end(*arguments)


@pytest.mark.parametrize(
    ("words", "model", "inputs"),
    [
        (["RECIPE", "eva_coco_seg.pth", "a.jpg"], ("RECIPE", "eva_coco_seg.pth"), ["a.jpg"]),
        (["RECIPE", "a.jpg", "--weights", "w.pth"], ("RECIPE", "w.pth"), ["a.jpg"]),
        (["w.pth", "a.jpg", "--config-file", "RECIPE"], ("RECIPE", "w.pth"), ["a.jpg"]),
        (["run", "a.jpg", "0"], (None, "run"), ["a.jpg", "0"]),
        (["run/config.yaml", "run", "a.jpg"], ("run/config.yaml", "run"), ["a.jpg"]),
        (["a.jpg", "b.jpg"], (None, None), ["a.jpg", "b.jpg"]),
        (["RECIPE"], (None, None), ["RECIPE"]),
    ],
)
def test_a_recipe_and_weights_before_the_pictures(words, model, inputs, tmp_path, monkeypatch):
    """As in the demo of mmdetection; a picture is neither."""
    monkeypatch.chdir(tmp_path)
    recipe = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    _touch(tmp_path, "a.jpg", "b.jpg", "w.pth", "run/config.yaml")
    words = [word.replace("RECIPE", recipe) for word in words]
    taken = []
    monkeypatch.setattr(command_line, "run_demo", lambda *_, **more: more["prepare"]())
    monkeypatch.setattr(command_line, "_plan", taken.append)
    if model[1] is None:
        with pytest.raises(SystemExit):
            command_line.demo([*words, "--output", "out"])
        return
    command_line.demo([*words, "--output", "out"])
    (args,) = taken
    found = [str(one) if one is not None else None for one in (args.config_file, args.weights)]
    assert found == [one and one.replace("RECIPE", recipe) for one in model]
    assert [str(one) for one in args.inputs] == [one.replace("RECIPE", recipe) for one in inputs]


def test_a_full_disk_gets_a_sentence_and_leaves_nothing(tmp_path):
    Image.effect_noise((600, 400), 60).save(tmp_path / "a.png")
    jobs = _jobs(tmp_path, "a.png")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UnwritableError, match="out is a file and not a folder"):
        detect_jobs(Finds(), jobs, tmp_path / "out")
    (tmp_path / "out").unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # as a full disk
        with pytest.raises(UnwritableError, match=r"a\.png cannot be written: File too large"):
            detect_jobs(Finds(), jobs, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "out").iterdir())

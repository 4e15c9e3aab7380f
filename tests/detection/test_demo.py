"""The demo: what it finds, writes, refuses and skips; complete runs as a program."""

import resource
import signal

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from eva_data.files import UnwritableError
from eva_data.inputs import Job
from eva_detection import command_line
from eva_detection.inference.predictor import Category, as_coco, detect_jobs
from eva_report.detection_demo import writing_predictions

SIZE = {"size": (40, 60)}
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
        f"output   {tmp_path / 'out'} (images, videos and predictions.json)",
    ]
    nothing = Finds(anything=False)
    detect_jobs(nothing, jobs, tmp_path / "out")
    assert capsys.readouterr().out == (
        "1 image and 1 video (3 frames): nothing at 0.5; the best score is 0.40: "
        "lower --score-threshold, with --overwrite\n"
        f"output   {tmp_path / 'out'} (images, videos and predictions.json)\n"
    )
    assert nothing.asked == 4


# --- the program ---


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

"""The demo: what it finds, writes, refuses and skips; complete runs as a program."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from eva_data.inputs import Job
from eva_detection import command_line
from eva_detection.inference.predictor import Category, detect_jobs

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


def _jobs(folder, *names):
    return [Job(folder / name, name, (folder / "out" / name,)) for name in names]


# --- pictures and predictions ---


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


# --- the program ---


@pytest.mark.parametrize(
    ("words", "model", "inputs"),
    [
        (["RECIPE", "eva_coco_seg.pth", "a.jpg"], ("RECIPE", "eva_coco_seg.pth"), ["a.jpg"]),
        (["w.pth", "a.jpg", "--config-file", "RECIPE"], ("RECIPE", "w.pth"), ["a.jpg"]),
        (["run", "a.jpg", "0"], (None, "run"), ["a.jpg", "0"]),
    ],
)
def test_a_recipe_and_weights_before_the_images(words, model, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    _touch(tmp_path, "a.jpg", "w.pth", "run/config.yaml")
    taken = []
    monkeypatch.setattr(command_line, "run_demo", lambda *_, **more: more["prepare"]())
    monkeypatch.setattr(command_line, "_plan", taken.append)
    command_line.demo([*(word.replace("RECIPE", recipe) for word in words), "--output", "out"])
    (args,) = taken
    assert (args.weights, [*map(str, args.inputs)]) == (model[1], inputs)
    assert str(args.config_file) == (model[0] or "None").replace("RECIPE", recipe)


@pytest.mark.parametrize("words", [["no/run", "x"], ["a.jpg"]])
def test_the_first_word_that_is_no_model_is_named(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.demo([*words, "--output", str(tmp_path)])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err

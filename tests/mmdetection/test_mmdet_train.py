"""The command lines of training and evaluation, and mmdetection's own tools and functions."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from safetensors.torch import save_file

from eva_mmdetection.commands import train
from eva_mmdetection.inference.predictor import Predictor
from eva_mmdetection.model.detectron2_names import to_detectron2

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.meshgrid:UserWarning", "ignore:The draw is False:UserWarning"
)
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
CPU = dict(device="cpu")


def same(ours, theirs):
    for name in ("bboxes", "scores", "labels", "masks"):
        assert torch.equal(ours[name], theirs[name]), name


@pytest.fixture(scope="module")
def predictor(tiny_run):
    """The trained detector, with all of its detections."""
    config, weights = tiny_run / "tiny.py", tiny_run / "iter_3.pth"
    return Predictor.from_config(config, weights=weights, score_threshold=0.0, **CPU)


def test_the_reader_of_pictures_is_found_by_its_type(predictor, tiny, tiny_run, tmp_path):
    """Own configs may read boxes, too, as mmdetection's do, in any order."""
    cfg, weights = Config.fromfile(tiny_run / "tiny.py"), tiny_run / "iter_3.pth"
    dataset = cfg.test_dataloader.dataset
    steps = dataset.pipeline
    dataset.pipeline = [dict(type="mmdet.LoadAnnotations", with_bbox=True), *steps]
    cfg.dump(tmp_path / "other.py")
    other = Predictor.from_config(
        tmp_path / "other.py", weights=weights, score_threshold=0.0, **CPU
    )
    picture = tiny / "val" / "1.png"
    same(other(picture), predictor(picture))


@pytest.mark.parametrize(("form", "suffix"), [("mmdet", ".safetensors"), ("detectron2", ".pth")])
@pytest.mark.filterwarnings("ignore:dataset_meta or class names are not saved:UserWarning")
def test_mmdetections_functions_take_converted_files(form, suffix, tiny_run, tmp_path):
    weights = torch.load(tiny_run / "iter_3.pth", weights_only=False)["state_dict"]  # of a test
    file = tmp_path / f"weights{suffix}"
    converted = dict(weights) if form == "mmdet" else to_detectron2(weights)[0]
    if suffix == ".pth":
        torch.save({"model": converted}, file)
    else:
        save_file(converted, file)
    model = init_detector(str(tiny_run / "tiny.py"), str(file), **CPU)
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["CONFIG", "--load-from", "eva_o356.pth"], "eva_o365"),
        (["CONFIG", "--train-images", "x"], "--train-annotations"),
        (["CONFIG", "--boxes-only"], "--boxes-only"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments, named, tiny, tiny_run, fails, tmp_path):
    places = {"CONFIG": tiny / "tiny.py", "RUN": tiny_run}
    if "--work-dir" not in arguments:
        arguments = [*arguments, "--work-dir", tmp_path / "run"]
    line = fails(train, *(places.get(word, word) for word in arguments))
    assert line.startswith("train.py: ")
    assert named in line
    assert not (tmp_path / "run").exists()

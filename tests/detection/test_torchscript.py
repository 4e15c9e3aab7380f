"""TorchScript of complete detectors: by detectron2's own route, and by our export."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.data.detection_utils import read_image
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess

from eva_detection import command_line
from eva_detection.inference import export

CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]
SOFT_NMS = (
    "model.roi_heads.use_soft_nms=True",
    "model.roi_heads.iou_threshold=0.6",
    "model.roi_heads.max_detections=40",
)
BEIT = ("model.backbone.net.rel_pos=beit",)


@pytest.fixture(scope="module")
def photo(photograph, tmp_path_factory):
    """A real photograph in a file, 96 x 128 px, and its pixels."""
    from PIL import Image

    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(photograph).resize((128, 96)).save(file)
    return file, torch.as_tensor(read_image(str(file), "RGB").transpose(2, 0, 1).copy())


def _detector(make, randomise, *settings):
    """A detector whose every candidate counts, so that there is much to compare."""
    torch.manual_seed(0)
    model = randomise(make(*settings), std=0.1).eval()
    for predictor in model.roi_heads.box_predictor:
        predictor.test_score_thresh = 0.0
    return model


def _exported(model, image, folder):
    """What detectron2's `tools/deploy/export_model.py` does.

    With `--export-method tracing --format torchscript`: a stand-in, for its wheel lacks the tool.
    """

    def inference(model, inputs):
        return [{"instances": model.inference(inputs, do_postprocess=False)[0]}]

    assert isinstance(model, GeneralizedRCNN)
    adapter = TracingAdapter(model, [{"image": image}], inference)
    torch.jit.save(torch.jit.trace(adapter, (image,)), folder / "model.ts")
    program = torch.jit.load(folder / "model.ts")
    return lambda picture: adapter.outputs_schema(program(picture))[0]["instances"]


def _close(found, expected):
    """The same detections up to the order of nearly equal scores."""
    assert len(found) == len(expected) > 10
    key = torch.cat([expected.pred_boxes.tensor, expected.pred_classes[:, None] * 1e4], dim=1)
    other = torch.cat([found.pred_boxes.tensor, found.pred_classes[:, None] * 1e4], dim=1)
    pairs = torch.cdist(key.double(), other.double()).argmin(dim=1)
    for name, atol in (("scores", 5e-4), ("pred_classes", 0), ("pred_masks", 5e-3)):
        torch.testing.assert_close(found.get(name)[pairs], expected.get(name), atol=atol, rtol=0)
    torch.testing.assert_close(
        found.pred_boxes.tensor[pairs], expected.pred_boxes.tensor, atol=0.05, rtol=0
    )


@pytest.mark.parametrize("settings", [(), SOFT_NMS, BEIT, ("model.backbone.square_pad=0",)])
@torch.no_grad()
def test_detectron2s_tool(settings, make_tiny_detector, randomise, photo, tmp_path, caplog):
    """At the traced size, at others on the canvas, and beyond it."""
    model = _detector(make_tiny_detector, randomise, *settings)
    _, image = photo
    program = _exported(model, image, tmp_path)
    sizes = [(96, 128), (128, 96), (61, 100), (160, 200), (200, 160)]
    sizes = sizes[:2] if settings == SOFT_NMS else sizes
    for size in sizes:
        picture = F.interpolate(image[None].float(), size=size).clamp(0, 255)[0]
        if settings == BEIT and max(size) > 128:
            with pytest.raises(RuntimeError, match="expanded size of the tensor"):
                program(picture)
            continue
        expected = model.inference([{"image": picture}], do_postprocess=False)[0]
        _close(program(picture), expected)
    found = detector_postprocess(program(image), 480, 640)  # as its evaluation does
    assert found.pred_masks.shape[1:] == (480, 640)


@pytest.fixture(scope="module")
def weights(make_tiny_detector, randomise, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "detector.pth"
    torch.save({"model": _detector(make_tiny_detector, randomise).state_dict()}, file)
    return file


@pytest.fixture
def run_export(repository, tiny_overrides, weights, photo, tmp_path):
    """Function: the command line with the tiny detector."""

    def run(*options, image=True):
        always = ["--config-file", str(repository / CONFIG), "--weights", str(weights)]
        always += ["--format", "torchscript", "--output", str(tmp_path / "new" / "tiny.ts")]
        always += ["--score-threshold", "0"]
        picture = ["--image", str(photo[0])] if image else []
        command_line.export([*always, *picture, *options, "--opts", *tiny_overrides])
        return tmp_path / "new" / "tiny.ts"

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--part", "backbone"), "backbone"),
        (("--output", "a.pt2"), "a.pt2"),
        (("--size", "64"), "--size"),
        (("--dtype", "float16"), "--dtype"),
        (("--tolerance", "1"), "--tolerance"),
        (("--score-threshold", "1"), "nothing is detected in the image"),
        (("--image", "nowhere.png"), "nowhere.png"),
    ],
)
def test_refusals(run_export, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        run_export(*options)
    assert stopped.value.code in (1, 2)
    assert message in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_picture_is_needed(run_export, capsys):
    with pytest.raises(SystemExit):
        run_export(image=False)
    assert "--image" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["scores", "pred_classes"])
def test_a_file_that_differs_is_deleted(run_export, tmp_path, monkeypatch, field):
    def worse(*arguments):
        found = compare(*arguments)
        return found | {field: found[field] + 1}

    compare = export._compare
    monkeypatch.setattr(export, "_compare", worse)
    with pytest.raises(SystemExit):
        run_export()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

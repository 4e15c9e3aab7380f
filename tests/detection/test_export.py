"""Export: the written file equals the model, and what is refused leaves nothing behind."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from PIL import Image

from eva_backbone.variants import FAMILIES
from eva_detection.config.recipes import box_predictors, set_backbone, update_each
from eva_detection.inference import export
from eva_detection.inference.predictor import Predictor


@pytest.fixture(scope="module")
def tiny_detector(make_tiny_detector, randomise):
    torch.manual_seed(0)
    return randomise(make_tiny_detector(), std=0.1).eval()


@pytest.mark.parametrize(
    ("settings", "size", "batch_size"),
    [
        ((), (64, 64), None),
        pytest.param(
            ("model.backbone.net.rel_pos=beit", "model.backbone.net.img_size=128"), (192, 192), 1,
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_program_equals_the_model(
    make_tiny_detector, randomise, tmp_path, settings, size, batch_size
):
    backbone = randomise(make_tiny_detector(*settings), std=0.1).backbone.eval()
    file = tmp_path / "new" / "a.pt2"
    differences = export.export_backbone(backbone, file, size=size, batch_size=batch_size)
    assert list(differences) == ["p2", "p3", "p4"]
    images = torch.randn(batch_size or 3, 3, *size)
    with torch.no_grad():
        expected = backbone(images)
    found = torch.export.load(file).module()(images)
    assert list(found) == ["p2", "p3", "p4"]
    for name, level in expected.items():
        torch.testing.assert_close(found[name], level, rtol=0, atol=1e-5)
    assert [path.name for path in file.parent.iterdir()] == ["a.pt2"]


def test_a_file_that_differs_is_deleted(tiny_detector, tmp_path, monkeypatch):
    def off(inputs):
        levels = tiny_detector.backbone(inputs["images"])
        return {name: level + 0.01 for name, level in levels.items()}

    monkeypatch.setattr(export.exported, "open_program", lambda file: off)
    (tmp_path / "a.pt2").write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"0\.01.*0\.001"):
        export.export_backbone(tiny_detector.backbone, tmp_path / "a.pt2", size=(64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    assert (tmp_path / "a.pt2").read_bytes() == b"earlier"


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [name for name in FAMILIES if name != "eva"],
)
def test_a_complete_detector_of_each_family_is_onnx(family, tiny_config, picture, tmp_path):
    """From random weights, at the size of the positions and at another."""
    torch.manual_seed(0)
    cfg = tiny_config()
    set_backbone(cfg.model, cfg.optimizer, f"{family}_debug")
    update_each(box_predictors(cfg.model.roi_heads), test_score_thresh=0.01)
    predictor = Predictor(instantiate(cfg.model), augmentations=[], categories=[])
    differences = export.export_detector(
        predictor, tmp_path / "a.onnx", image=picture, form="onnx", threshold=0.01
    )
    assert differences["pred_boxes"] < 1e-2
    assert (tmp_path / "a.onnx").is_file()


@pytest.mark.parametrize("canvas", [pytest.param(128, marks=pytest.mark.slow), 0])
@torch.no_grad()
def test_onnx_takes_other_batches_and_sizes(canvas, tiny_config, randomise, picture, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    cfg = tiny_config(f"model.backbone.square_pad={canvas}")
    update_each(box_predictors(cfg.model.roi_heads), test_score_thresh=0.01)
    detector = randomise(instantiate(cfg.model), std=0.1).eval()
    predictor = Predictor(detector, augmentations=[], categories=[])
    file = tmp_path / "a.onnx"
    export.export_detector(predictor, file, image=picture, form="onnx", threshold=0.01)
    onnx.checker.check_model(file)
    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.version for opset in model.opset_import] <= [20]
    session = onnxruntime.InferenceSession(file)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["preparation"])
    for shape in ((3, 75, 100), (2, 120, 60), (1, 40, 128)):
        values = np.random.default_rng(1).integers(0, 256, (shape[0], 3, *shape[1:]))
        images = torch.from_numpy(values.astype(np.float32))
        outputs = session.run(facts["outputs"], {"images": images.numpy()})
        outputs = {
            name: torch.from_numpy(v) for name, v in zip(facts["outputs"], outputs, strict=True)
        }
        eager = detector.inference([{"image": i} for i in images], do_postprocess=False)
        assert sum(map(len, eager)) == len(outputs["scores"]) > 0
        for index, expected in enumerate(eager):
            rows = outputs["image_index"] == index
            actual = {name: value[rows] for name, value in outputs.items()}
            fields = expected.get_fields()
            fields["pred_boxes"] = fields["pred_boxes"].tensor
            apart = [_points(fields), _points(actual)]  # equal scores have no order
            pairs = torch.cdist(*apart).argmin(dim=1)
            for name, atol in {"pred_boxes": 0.05, "scores": 1e-3, "pred_masks": 1e-3}.items():
                torch.testing.assert_close(actual[name][pairs], fields[name], atol=atol, rtol=0)


def _points(fields):
    classes = fields["pred_classes"][:, None] * 1000
    return torch.cat([fields["pred_boxes"], classes, fields["scores"][:, None] * 100], dim=1)


@pytest.mark.slow
@torch.no_grad()
def test_openvino_and_int8(tiny_config, randomise, picture, repository, tmp_path):
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    cfg = tiny_config()
    update_each(box_predictors(cfg.model.roi_heads), test_score_thresh=0.01)
    predictor = Predictor(
        randomise(instantiate(cfg.model), std=0.05).eval(), augmentations=[], categories=[]
    )
    picture = picture.repeat(2, axis=0).repeat(2, axis=1)
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "images/a.png")
    settings = {"image": picture, "threshold": 0.01}
    file = tmp_path / "a.xml"
    differences = export.export_detector(predictor, file, form="openvino", **settings)
    assert differences["pred_boxes"] < 0.05
    model = openvino.Core().read_model(file)
    facts = json.loads(model.get_rt_info("preparation").astype(str))
    assert facts["pixel_std"] == predictor.model.pixel_std.flatten().tolist()
    sizes = []
    for precision in ("fp32", "int8"):
        file = tmp_path / f"{precision}.onnx"
        more = {"precision": precision}
        more["calibrate"] = tmp_path / "images" if precision == "int8" else None
        shares = export.export_detector(predictor, file, form="onnx", **settings, **more)
        sizes.append(file.stat().st_size)
    assert 0.5 < shares["share found"] <= 1
    assert sizes[1] < 0.6 * sizes[0]
    compiler, libraries = shutil.which("g++"), Path(openvino.__path__[0])
    if compiler is None:
        return
    (program,) = re.findall(r"```cpp\n(.*?)```", (repository / "docs/export.md").read_text(), re.S)
    (tmp_path / "a.cpp").write_text(program)
    (library,) = (libraries / "libs").glob("libopenvino.so.*")
    links = [library, f"-Wl,-rpath,{library.parent}", "-Wl,--allow-shlib-undefined"]
    source = ["-std=c++17", f"-I{libraries / 'include'}", tmp_path / "a.cpp"]
    subprocess.run([compiler, *source, "-o", tmp_path / "a", *links], check=True)
    (tmp_path / "a.rgb").write_bytes(picture.tobytes())
    height, width = map(str, picture.shape[:2])
    words = [tmp_path / "a", tmp_path / "a.xml", width, height, tmp_path / "a.rgb"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    scores = [float(line.split()[1]) for line in done.stdout.splitlines()]
    inputs = [{"image": predictor.prepare(picture)["image"]}]
    (expected,) = predictor.model.inference(inputs, do_postprocess=False)
    assert scores == pytest.approx(expected.scores.tolist(), abs=1e-3)

"""Complete models as ONNX: a program without torch finds with a file what the model finds."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

onnxruntime = pytest.importorskip("onnxruntime")
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['torch', 'torchvision', 'cv2']))\n"


@pytest.fixture(scope="module")
def consume(root, tmp_path_factory):
    """Function: lines that the program of docs/export.md prints, and the image that it draws."""
    page = (root / "docs/export.md").read_text()
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
                  if "InferenceSession" in block)  # fmt: skip
    drawn = tmp_path_factory.mktemp("drawn") / "drawn.png"

    def run_alone(file, image):
        command = [sys.executable, "-c", WITHOUT + program, str(file), str(image), str(drawn)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with Image.open(drawn) as shown:
            return [line.split() for line in done.stdout.splitlines()], np.asarray(shown)

    return run_alone


@pytest.fixture(scope="module")
def facts():
    """Function: what a file says of the preparation of its input."""

    def read(file):
        session = onnxruntime.InferenceSession(file)
        return json.loads(session.get_modelmeta().custom_metadata_map["preparation"])

    return read


@pytest.fixture(scope="module")
def image(demo):
    """An image of the detector's data."""
    return sorted((demo("coco") / "coco" / "val").iterdir())[0]


def test_a_detector(finished, image, run, documented, consume, tmp_path):
    output, file = finished("detection"), tmp_path / "detector.onnx"
    run("eva", "export", output, "--image", image, "--score-threshold", 0.01, "--output", file)
    lines, drawn = consume(file, image)
    predictor = documented("eva_detection", "Predictor").from_run(output, score_threshold=0.01)
    found = predictor(str(image))
    scores, boxes = (np.array([line[part] for line in lines], float)
                     for part in (slice(1, 2), slice(2, 6)))  # fmt: skip
    np.testing.assert_allclose(scores[:, 0], found.scores.numpy(), atol=2e-4)
    assert np.abs(boxes[0] - found.pred_boxes.tensor[0].numpy()).max() <= 1
    assert {line[0] for line in lines} <= set(predictor.class_names)
    assert drawn.shape[:2] == found.image_size


@pytest.mark.slow
def test_a_segmentor(finished, demo, run, documented, consume, facts, tmp_path):
    output = finished("segmentation")
    (image, *_) = (demo("semantic") / "semantic/images/validation").iterdir()
    file, fixed = tmp_path / "any.onnx", tmp_path / "fixed.onnx"
    run("eva", "export", output, "--output", file)
    _, drawn = consume(file, image)
    predictor = documented("eva_segmentation", "Predictor").from_config(output)
    colors = np.array(predictor.colors)[predictor(image)]
    assert (drawn == colors).all(-1).mean() > 0.99
    assert facts(file)["class_names"] == list(predictor.names)
    run("eva", "export", output, "--output", fixed, "--size", 100, 150)
    (given,) = onnxruntime.InferenceSession(fixed).get_inputs()
    assert given.shape[1:] == [3, 100, 150]


@pytest.mark.slow
def test_classifiers_of_images_and_videos(finished, engine_data, run, documented, consume, facts,
                                          tmp_path):  # fmt: skip
    output = finished("classification")
    file = tmp_path / "images.onnx"
    run("eva", "export", output, "--output", file)
    program = pytest.importorskip("onnx").load(file)
    assert {node.domain for node in program.graph.node} == {""}
    assert [opset.version for opset in program.opset_import] <= [20]
    run("eva", "export", output, "--precision", "int8", "--output", tmp_path / "int8.onnx")
    (image, *_) = (engine_data / "folder/val/7").iterdir()
    lines, _ = consume(file, image)
    found = documented("eva_classification", "Predictor").from_weights(output)(image)
    assert [name for name, _ in lines] == [name for name, _ in found]
    np.testing.assert_allclose([float(share) for _, share in lines], [p for _, p in found],
                               atol=2e-3)  # fmt: skip
    output = finished("video")
    run("eva", "video", "export", output, "--output", tmp_path / "clips.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "clips.onnx")
    noted = facts(tmp_path / "clips.onnx")
    (logits,) = session.run(None, {"clips": np.zeros((3, *noted["shape"]), np.float32)})
    assert logits.shape == (3, len(noted["class_names"]))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("out/run_god --output x.onnx", "close to it: out/run_good"),
        ("mmdetection --output x.onnx", "mmdetection"),
        ("classification --weights eva_debug --output x.bin", "x.bin"),
        ("classification --weights eva_debug --format openvino --output x", "end in .xml"),
        ("classification --weights eva_debug --format onnx --output x.pt2", "end in .onnx"),
        ("classification --weights eva_debug --image-size 100 --output x.onnx", "100"),
        ("segmentation --weights out/run_good --output x.onnx", "out/run_good"),
        (
            "classification --weights eva_debug --precision int8 --output x.onnx",
            "add --calibrate FOLDER",
        ),
        (
            "classification --weights eva_debug --precision int8 --calibrate out --output x.onnx",
            "--calibrate out holds no image",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_error(words, named, call_eva, fails, tmp_path):
    (tmp_path / "out" / "run_good").mkdir(parents=True)
    fails(call_eva("eva", "export", *words.split()), named)
    assert not [*tmp_path.glob("x*")]

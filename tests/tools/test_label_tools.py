"""A model in CVAT and Label Studio, by cvat-cli and label-studio-ml beside the toolkit."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pycocotools.mask as mask_api
import pytest
from PIL import Image

from eva_command import label
from eva_data.detection.tiles import encode_mask

TOOLS = Path(__file__).parents[2] / "tools"
NAMES = ["bolt", "nut", "other"]


@pytest.fixture(autouse=True)
def mask(monkeypatch):
    """The mask of a nut that a model finds in every image, beside a faint bolt without one."""
    found = np.zeros((20, 30), np.uint8)
    found[4:10, 5:20] = 1
    nut = {"category_id": 1, "bbox": [5.0, 4.0, 15.0, 6.0], "score": 0.75}
    nut["segmentation"] = encode_mask(found)
    bolt = {"category_id": 0, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.25}
    monkeypatch.setattr(label, "open_model", lambda *_, **__: (NAMES, lambda _: [{**nut}, bolt]))
    return found


def test_cvat_gets_masks_boxes_and_polygons(mask, monkeypatch):
    common = pytest.importorskip("cvat_cli._internal.common", reason="needs cvat-cli")
    from cvat_sdk.auto_annotation import driver
    from cvat_sdk.masks import decode_mask

    loader = common.FunctionLoader(None, TOOLS / "cvat_function.py", {"weights": "run"})
    kind = {"type": "any", "attributes": [], "sublabels": []}
    labels = [SimpleNamespace(id=100 + at, name=name, **kind) for at, name in enumerate(NAMES)]
    media = SimpleNamespace(load_image=lambda: Image.new("L", (30, 20)))
    data = [SimpleNamespace(frame_name="a", frame_index=7, media=media)]
    task = SimpleNamespace(labels=labels, samples=data)
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: task)

    def annotate(**options):
        client = mock.MagicMock()
        driver.annotate_task(client, 1, loader.load(), **options)
        sent = client.tasks.api.partial_update_annotations.call_args.kwargs
        return sent["patched_labeled_data_request"].shapes

    (one,) = annotate()
    assert (one.frame, one.label_id) == (7, 101)
    assert (decode_mask(one.points, image_width=30, image_height=20) == mask).all()
    _, box = annotate(conf_threshold=0.1)
    assert (box.label_id, box.type.value, box.points) == (100, "rectangle", [1, 2, 4, 6])
    (polygon,) = annotate(conv_mask_to_poly=True)
    drawn = mask_api.decode(mask_api.frPyObjects([polygon.points], 20, 30))[..., 0]
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9


@pytest.mark.parametrize("kind", ["PolygonLabels", "RectangleLabels"])
def test_label_studio_gets_what_a_project_names(kind, tmp_path, monkeypatch):
    for name in ("MODEL_DIR", "LOCAL_FILES_DOCUMENT_ROOT", "EVA_MODEL"):
        monkeypatch.setenv(name, str(tmp_path))
    pytest.importorskip("label_studio_ml.api", reason="needs label-studio-ml")
    from label_studio_sdk.label_interface import LabelInterface

    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    client = runpy.run_path(str(TOOLS / "label_studio_backend.py"))["app"].test_client()
    inside = f'<{kind} name="kind" toName="shown"><Label value="nut"/></{kind}>'
    config = f'<View><Image name="shown" value="$photo"/>{inside}</View>'
    tasks = [{"id": 1, "data": {"photo": "/data/local-files/?d=a.png"}}]
    about = {"tasks": tasks, "label_config": config, "project": "1.1"}
    (found,) = client.post("/predict", json=about).json["results"]
    assert not LabelInterface(config).validate_prediction(found, return_errors=True)
    (one,) = found["result"]
    assert (one["value"][kind.lower()], one["score"]) == (["nut"], 0.75)
    if kind == "RectangleLabels":
        box = [one["value"][key] for key in ("x", "y", "width", "height")]
        assert box == pytest.approx([100 / 6, 20, 50, 30])

"""Segmentors as ONNX: any number of images of any size, by standard operators."""

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from eva_segmentation.inference.export import export_segmentor
from eva_segmentation.inference.predictor import Predictor


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 10_000])  # of the logits, which training makes large
def test_onnx_takes_other_batches_and_sizes(scale, load_config, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    cfg = load_config("demo/upernet_eva_debug")
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg.update(crop_size=(128, 128), stride=(96, 96))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(model.decode_head.conv_seg.weight, std=0.1 * scale)
    cfg.dump(tmp_path / "config.py")
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "weights.pth")
    predictor = Predictor.from_config(
        tmp_path / "config.py", weights=tmp_path / "weights.pth", device="cpu"
    )
    file = tmp_path / "a.onnx"
    export_segmentor(predictor, file)
    onnx.checker.check_model(file)
    program = onnx.load(file)
    assert {node.domain for node in program.graph.node} == {""}
    assert [opset.version for opset in program.opset_import] <= [20]
    session = onnxruntime.InferenceSession(file)
    for shape in ((3, 100, 140), (2, 150, 90), (1, 128, 128)):
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
        labels, scores = session.run(["labels", "scores"], {"images": pixels})
        for index, image in enumerate(images):
            expected = predictor.sample(image).seg_logits.data.numpy()
            assert expected.std() > 0.01
            tolerance = 0.02 * max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(scores[index], expected, atol=tolerance)
            assert (labels[index] == scores[index].argmax(0)).all()

"""Images larger than the canvas are seen completely; all others are treated as before."""

import logging

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN

from eva_detection.model.rcnn import EVARCNN

CANVAS = 128


def _batch(*sizes):
    return [{"image": torch.rand(3, *size) * 255} for size in sizes]


@pytest.fixture
def pair(make_tiny_detector):
    """The tiny detector under our and under detectron2's class, with the same weights."""
    ours = make_tiny_detector("model.roi_heads.box_predictors.0.test_score_thresh=0.0").eval()
    stock = make_tiny_detector("model._target_=detectron2.modeling.GeneralizedRCNN").eval()
    stock.load_state_dict(ours.state_dict(), strict=True)
    assert type(ours) is EVARCNN
    assert type(stock) is GeneralizedRCNN
    return ours, stock


@pytest.mark.parametrize("sizes", [[(100, 128)], [(128, 128), (64, 90)]])
def test_images_within_the_canvas_are_unchanged_bit_for_bit(pair, sizes, caplog):
    ours, stock = pair
    batch = _batch(*sizes)
    images, expected = ours.preprocess_image(batch), stock.preprocess_image(batch)
    assert torch.equal(images.tensor, expected.tensor)
    assert images.image_sizes == expected.image_sizes
    with torch.no_grad():
        for got, wanted in zip(ours(batch), stock(batch), strict=True):
            for name, value in wanted["instances"].get_fields().items():
                other = got["instances"].get(name)
                value, other = (getattr(x, "tensor", x) for x in (value, other))
                assert torch.equal(other, value), name
    assert "square_pad" not in caplog.text


@pytest.mark.parametrize(
    ("sizes", "side"),
    [([(100, 200), (150, 90)], 208), ([(145, 60), (20, 176)], 176)],
)
def test_the_canvas_grows_to_the_longest_side(pair, sizes, side, caplog):
    ours, _ = pair
    batch = _batch(*sizes)
    with caplog.at_level(logging.WARNING):
        images = ours.preprocess_image(batch)
        ours.preprocess_image(batch)
    assert images.tensor.shape == (len(sizes), 3, side, side)
    assert images.image_sizes == sizes
    for image, entry, (height, width) in zip(images.tensor, batch, sizes, strict=True):
        inside = (entry["image"] - ours.pixel_mean) / ours.pixel_std
        assert torch.equal(image[:, :height, :width], inside)
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
    assert len([r for r in caplog.records if "exceeds square_pad=128" in r.message]) == 1


@pytest.mark.parametrize("others", [pytest.param([], marks=pytest.mark.slow), [(150, 90)]])
def test_predictions_over_the_whole_image(make_tiny_detector, others):
    ours = make_tiny_detector(
        *(f"model.roi_heads.box_predictors.{i}.test_score_thresh=0.0" for i in range(3)),
        *(f"model.roi_heads.box_predictors.{i}.test_topk_per_image=1000" for i in range(3)),
    ).eval()
    with torch.no_grad():
        found = ours(_batch((100, 250), *others))[0]["instances"]
    assert found.image_size == (100, 250)
    boxes = found.pred_boxes.tensor
    assert (boxes[:, 0] > CANVAS + 30).any()
    assert found.pred_masks.shape[1:] == (100, 250)


def test_without_a_canvas_a_batch_is_padded_to_the_stride_alone(make_tiny_detector):
    detector = make_tiny_detector("model.backbone.square_pad=0").eval()
    images = detector.preprocess_image(_batch((60, 120), (50, 100)))
    assert images.tensor.shape == (2, 3, 64, 128)

"""The predictor: what it takes, what comes back, and in which coordinates and classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from eva_detection.inference import test_time_augmentation
from eva_detection.inference.predictor import Predictor, find_categories

CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"


@pytest.fixture(scope="module")
def weights(make_tiny_detector, tmp_path_factory):
    """File of an untrained tiny detector."""
    file = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(0)
    model = make_tiny_detector()
    for predictor in model.roi_heads.box_predictor:  # else all scores are alike
        torch.nn.init.normal_(predictor.cls_score.weight)
    torch.save({"model": model.state_dict()}, file)
    return file


@pytest.fixture(scope="module")
def build(repository, tiny_overrides, weights):
    """Function: the predictor of the tiny detector with some low threshold."""

    def build_predictor(*more, threshold=0.05, **settings):
        settings = {"weights": weights} | settings
        return Predictor.from_config(
            repository / CONFIG,
            score_threshold=threshold,
            overrides=(*tiny_overrides, *more),
            **settings,
        )

    return build_predictor


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def _same(first, second):
    return all(
        torch.equal(*(getattr(x.get(name), "tensor", x.get(name)) for x in (first, second)))
        for name in ("pred_boxes", "scores", "pred_classes", "pred_masks")
    )


@pytest.mark.parametrize(
    "aug",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("test.aug.min_sizes=[64,96]", "test.aug.flip=True"),
    ],
)
def test_encoded_masks_are_pasted_a_few_at_a_time(aug, build, picture, monkeypatch):
    """Those of large pictures do not fit into memory together."""
    predictor = build(*aug)
    expected = predictor(picture)
    assert len(expected) > 5
    pasted, paste = [], test_time_augmentation.detector_postprocess
    monkeypatch.setattr(test_time_augmentation, "_PASTED_AT_ONCE", 3 * 60 * 90)
    monkeypatch.setattr(
        test_time_augmentation,
        "detector_postprocess",
        lambda raw, *size: (pasted.append(len(raw)), paste(raw, *size))[1],
    )
    found = predictor.with_encoded_masks(picture)
    assert max(pasted) == 3
    masks = torch.from_numpy(np.stack([rle.decode(code) for code in found.pred_masks_rle])).bool()
    found.remove("pred_masks_rle")
    found.pred_masks = masks
    assert _same(found, expected)
    nothing = build(*aug, threshold=1.0).with_encoded_masks(picture)
    assert (len(nothing), nothing.pred_masks_rle) == (0, [])


def test_array_pil_image_and_path_give_the_same(build, picture, tmp_path):
    predictor = build()
    Image.fromarray(picture).save(tmp_path / "picture.png")
    found = predictor(picture)
    assert len(found) > 0
    assert found.image_size == (60, 90)
    assert found.pred_masks.shape == (len(found), 60, 90)
    assert found.pred_masks.dtype == torch.bool
    boxes = found.pred_boxes.tensor
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 90).all()
    assert (boxes[:, 3] <= 60).all()
    assert (found.scores.diff() <= 0).all()
    assert _same(found, predictor(Image.fromarray(picture)))
    assert _same(found, predictor(tmp_path / "picture.png"))
    assert _same(found, predictor(str(tmp_path / "picture.png")))
    several = predictor([picture, Image.fromarray(picture)])
    assert [_same(found, one) for one in several] == [True, True]
    ((file, one),) = predictor(f"{tmp_path}/*.png")
    assert file == tmp_path / "picture.png"
    assert _same(found, one)


def test_equals_detectron2_on_the_resized_image(build, picture):
    """The picture of 60 x 90 px is enlarged to 85 x 128, as the config's test set is."""
    predictor = build()
    resized = np.asarray(Image.fromarray(picture).resize((128, 85), Image.Resampling.BILINEAR))
    pixels = torch.tensor(resized.transpose(2, 0, 1).astype(np.float32))
    with torch.no_grad():
        batch = [{"image": pixels, "height": 60, "width": 90}]
        expected = predictor.model(batch)[0]["instances"]
    assert _same(predictor(picture), expected)


def test_names_from_metadata_of_coco_and_lvis(load_config):
    coco = find_categories(load_config("coco/cascade_mask_rcnn_vitdet_eva_g_1280"))
    assert len(coco) == 80
    assert coco[0] == (1, "person")
    assert coco[-1] == (90, "toothbrush")
    lvis = find_categories(load_config("lvis/cascade_mask_rcnn_vitdet_eva_g_1280"))
    assert len(lvis) == 1203
    assert lvis[0].id == 1
    assert lvis[-1] == (1203, "zucchini")


@pytest.fixture(scope="module")
def large():
    """A picture of two by two tiles of 128 px, the training size."""
    return np.random.default_rng(1).integers(0, 256, (200, 220, 3), dtype=np.uint8)


def test_slices_of_one_tile_change_nothing(build, large):
    assert _same(build(slice=220)(large), build()(large))
    assert _same(build(slice="auto")(large[:192]), build()(large[:192])) is False
    assert _same(build(slice="auto")(large[:180, :190]), build()(large[:180, :190]))


@pytest.mark.parametrize(
    "aug", [(), pytest.param(("test.aug.min_sizes=[128]",), marks=pytest.mark.slow)]
)
def test_slices_find_what_their_tiles_and_the_image_show(aug, build, large, tmp_path):
    plain, sliced = build(*aug), build(*aug, slice=128, overlap=0.2)
    found = sliced(large)
    assert (found.scores.diff() <= 0).all()
    alone = [(plain(large[y : y + 128, x : x + 128]), x, y) for y in (0, 72) for x in (0, 92)]
    alone.append((plain(large), 0, 0))
    boxes = torch.cat([one.pred_boxes.tensor + torch.tensor([x, y, x, y]) for one, x, y in alone])
    assert (found.pred_boxes.tensor[:, None] - boxes).abs().amax(2).amin(1).max() < 1e-3
    assert len(found) > len(plain(large))
    # an evaluator gets the same, with codes of masks; the loader's image is resized
    Image.fromarray(large).save(tmp_path / "large.png")
    entry = {"image": torch.zeros(3, 116, 128), "height": 200, "width": 220}
    (scored,) = sliced.model([entry | {"file_name": str(tmp_path / "large.png")}])
    masks = np.stack([rle.decode(code) for code in scored["instances"].pred_masks_rle])
    assert np.array_equal(found.pred_masks.numpy(), masks)


def test_detections_of_supervision(build, picture):
    supervision = pytest.importorskip("supervision")
    predictor = build()
    found = predictor(picture)[:3]
    ours = found.to_supervision()
    names = ours.data.pop("class_name").tolist()
    assert ours == supervision.Detections.from_detectron2({"instances": found})
    assert names == [predictor.class_names[label] for label in found.pred_classes]

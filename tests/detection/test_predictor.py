"""The predictor: what it takes, what comes back, and in which coordinates and classes."""

import json
import re

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as rle

from eva_detection.inference import predictor as predictor_module
from eva_detection.inference.predictor import Category, Predictor, find_categories

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
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


@pytest.mark.parametrize("aug", [(), ("test.aug.min_sizes=[64,96]", "test.aug.flip=True")])
def test_encoded_masks_are_pasted_a_few_at_a_time(aug, build, picture, monkeypatch):
    """Those of large pictures do not fit into memory together."""
    predictor = build(*aug)
    expected = predictor(picture)
    assert len(expected) > 5
    pasted, paste = [], predictor_module.detector_postprocess
    monkeypatch.setattr(predictor_module, "_PASTED_AT_ONCE", 3 * 60 * 90)
    monkeypatch.setattr(
        predictor_module,
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


def test_the_best_score_below_the_threshold(build, picture):
    best = float(build()(picture).scores[0])
    predictor = build(threshold=0.999)
    assert len(predictor(picture)) == 0
    assert predictor.best_score(picture) == pytest.approx(best)
    assert len(predictor(picture)) == 0  # the threshold is what it was


def test_the_detector_of_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.yaml of a training lies with"):
        Predictor.from_run(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {}")
    with pytest.raises(ValueError, match="config"):  # it is read
        Predictor.from_run(tmp_path)


def test_equals_detectron2_on_the_resized_image(build, picture):
    """The picture of 60 x 90 px is enlarged to 85 x 128, as the config's test set is."""
    predictor = build()
    resized = np.asarray(Image.fromarray(picture).resize((128, 85), Image.Resampling.BILINEAR))
    pixels = torch.tensor(resized.transpose(2, 0, 1).astype(np.float32))
    with torch.no_grad():
        batch = [{"image": pixels, "height": 60, "width": 90}]
        expected = predictor.model(batch)[0]["instances"]
    assert _same(predictor(picture), expected)


def test_channels_of_a_bgr_detector_are_swapped(build, picture):
    rgb, bgr = build(), build("model.input_format=BGR")
    assert _same(rgb(picture), bgr(np.ascontiguousarray(picture[:, :, ::-1])))


@pytest.mark.parametrize(
    "heads",
    [
        (),
        ("model.roi_heads.use_soft_nms=True", "model.roi_heads.method=gaussian"),
        ("model.roi_heads.maskness_thresh=0.5",),
        ("model.roi_heads.use_soft_nms=True", "model.roi_heads.override_score_thresh=0.0"),
    ],
)
def test_the_threshold_replaces_that_of_the_model(build, picture, heads):
    """A high threshold gives the best of what a low one gives; a low one is not cut by the
    config's 0.05."""
    many = ("model.roi_heads.box_predictors.2.test_topk_per_image=5000",)
    everything = build(*heads, *many, threshold=0.0)(picture)
    assert everything.scores.min() < 0.04
    median = everything.scores.median().item()
    some = build(*heads, *many, threshold=median)(picture)
    assert 0 < len(some) < len(everything)
    assert some.scores.min() >= median
    torch.testing.assert_close(some.scores, everything.scores[: len(some)], rtol=0, atol=0)
    torch.testing.assert_close(
        some.pred_boxes.tensor, everything.pred_boxes.tensor[: len(some)], rtol=0, atol=0
    )


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(build, array):
    with pytest.raises(ValueError, match=r"an image must be \(H, W, 3\) RGB in uint8, got"):
        build()(array)


def test_settings_are_checked(build, tmp_path):
    with pytest.raises(ValueError, match="score_threshold must be in"):
        build(threshold=1.5)
    with pytest.raises(ValueError, match="needs weights"):
        build(weights="")
    with pytest.raises(ValueError, match=r"there is no recipe '.*none\.py' of detection"):
        Predictor.from_config(tmp_path / "none.py", weights="eva_debug")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.x=3", "unknown setting trian.x"),
        ("model.backbone.nope=3", "nope"),
    ],
)
def test_wrong_overrides_are_refused(build, override, message):
    with pytest.raises(ValueError, match=message):
        build(override)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(build, device):
    with pytest.raises(ValueError, match=f"{device}"):
        build(device=device)


def test_a_backbone_is_not_enough(build, tmp_path, make_tiny_detector):
    state = make_tiny_detector().backbone.state_dict()
    torch.save({f"backbone.{name}": value for name, value in state.items()}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b\.pth holds a backbone, not a detector"):
        build(weights=tmp_path / "b.pth")


def test_names_from_metadata_of_coco_and_lvis(load_config):
    coco = find_categories(load_config("coco/cascade_mask_rcnn_vitdet_eva_g_1280"))
    assert len(coco) == 80
    assert coco[0] == (1, "person")
    assert coco[-1] == (90, "toothbrush")
    lvis = find_categories(load_config("lvis/cascade_mask_rcnn_vitdet_eva_g_1280"))
    assert len(lvis) == 1203
    assert lvis[0].id == 1
    assert lvis[-1] == (1203, "zucchini")


@pytest.fixture
def own_data(tmp_path, tiny_config):
    """Function: the config of a data set with these categories in its file."""
    file = tmp_path / "own.json"
    DatasetCatalog.register("own_val", list)
    MetadataCatalog.get("own_val").set(json_file=str(file))

    def make(categories):
        if categories is not None:
            file.write_text(json.dumps({"categories": categories}))
        return tiny_config("dataloader.test.dataset.names=own_val", "model.roi_heads.num_classes=2")

    yield make
    DatasetCatalog.remove("own_val")
    MetadataCatalog.remove("own_val")


def test_names_from_the_annotation_file(own_data):
    cfg = own_data([{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}])
    assert find_categories(cfg) == (Category(3, "cat"), Category(7, "dog"))


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (None, "0 classes"),
        ([{"id": 1, "name": "cat"}], "1 classes .* model has 2"),
    ],
)
def test_numbers_where_names_are_not_known(own_data, categories, message, caplog):
    assert find_categories(own_data(categories)) == ((1, "0"), (2, "1"))
    assert re.search(message, caplog.text)


def test_numbers_for_a_data_set_that_is_not_registered(tiny_config, caplog):
    cfg = tiny_config("dataloader.test.dataset.names=nowhere", "model.roi_heads.num_classes=1")
    assert find_categories(cfg) == ((1, "0"),)
    assert "'nowhere'" in caplog.text

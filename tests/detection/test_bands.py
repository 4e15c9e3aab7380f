"""Detectors of images with more than three bands: measured, trained, kept, drawn."""

import copy
import json
from dataclasses import replace

import detectron2.data.transforms as T
import numpy as np
import pytest
import tifffile
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.utils.events import EventStorage

from eva_data.bands import BandRequest, continue_bands
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.tiles import Slicing
from eva_detection.building import bands_of
from eva_detection.config.files import load_config_file, save_config
from eva_detection.config.own_data import apply_bands, apply_data
from eva_detection.config.recipes import box_predictors, update_each
from eva_detection.evaluation.report import first_samples
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.inference.export import export_detector
from eva_detection.inference.predictor import Predictor
from eva_detection.inference.test_time_augmentation import SlicedRCNN
from eva_runs.recipes import find_recipe


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
    """Digit scenes of 16 bits, of which band 4 of 5 alone shows the digits."""
    source, folder = demo("coco", val=6) / "coco", tmp_path_factory.mktemp("bands")
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        content = json.loads((source / f"annotations/instances_{part}.json").read_text())
        for image in content["images"]:
            image["file_name"] = image["file_name"].replace(".jpg", ".tif")
            pixels = random.integers(0, 900, (image["height"], image["width"], 5), dtype=np.uint16)
            for annotation in content["annotations"]:
                if annotation["image_id"] == image["id"]:
                    x, y, width, height = map(int, annotation["bbox"])
                    pixels[y : y + height, x : x + width, 3] += 9000
            file = folder / part / image["file_name"]
            file.parent.mkdir(exist_ok=True)
            tifffile.imwrite(file, pixels, photometric="minisblack", planarconfig="contig")
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def data(folder):
    files = {part: (folder / f"{part}.json", folder / part) for part in ("train", "val")}
    return resolve(DataRequest(files=files, allow_empty=True))


@pytest.fixture
def config(data, tiny_config, tmp_path):
    cfg = tiny_config(f"train.output_dir={tmp_path}")
    colours = LazyCall(T.RandomSaturation)(intensity_min=0.5, intensity_max=1.5)
    cfg.dataloader.train.mapper.augmentations.insert(0, colours)
    apply_data(cfg, data)
    notes = apply_bands(cfg, BandRequest(count=5, show="4,2,1"), data)
    assert any("RandomSaturation" in note for note in notes)
    return cfg


def test_a_detector_learns_of_bands_and_draws_three(config, data):
    mapper = instantiate(config.dataloader.train.mapper)
    samples = [mapper(record) for record in EvaluationSet(config, data).build_dataset("train")[:2]]
    assert samples[0]["image"].shape[0] == 5
    assert samples[0]["image"].dtype == torch.float32
    assert len(samples[0]["image"][0].unique()) > 256  # no bits are lost
    model = instantiate(config.model)
    assert model.pixel_mean.shape == (5, 1, 1)
    with torch.no_grad(), EventStorage(0):
        assert np.isfinite(sum(model(samples).values()).item())
    tile = next(first_samples(config, samples))
    red, green, _ = np.moveaxis(np.asarray(tile.image), -1, 0)
    assert red.std() != green.std()


def test_a_run_keeps_its_bands(config, folder, tmp_path):
    config.own_data.update(boxes_only=False, masks=True, tile=None)
    recipe = find_recipe("detection", "demo/cascade_mask_rcnn_vitdet_eva_debug")
    save_config(config, tmp_path / "config.yaml", source=recipe)
    cfg = load_config_file(tmp_path / "config.yaml")
    bands = bands_of(cfg)
    assert bands == bands_of(config)
    assert bands.high[3] > 9000
    model = instantiate(cfg.model).eval()
    resize = instantiate(cfg.dataloader.test.mapper.augmentations)
    predictor = Predictor(
        model, augmentations=resize, categories=(), score_threshold=0.0, bands=bands
    )
    file = folder / "val/000001.tif"
    sample = instantiate(cfg.dataloader.test.mapper)(
        {"file_name": str(file), "height": 128, "width": 128}
    )
    assert torch.equal(predictor.prepare(file)["image"], sample["image"])
    assert len(predictor(file)) == len(predictor(tifffile.imread(file)))
    with pytest.raises(ValueError, match=r"4.*5"):
        predictor(tifffile.imread(file)[..., :4])
    tiles = SlicedRCNN(model, Slicing(64, 0.2), resize)
    tiles.bands = bands
    sliced = Predictor(tiles, augmentations=(), categories=(), score_threshold=0.0, bands=bands)
    assert len(sliced(file)) > 0


@pytest.mark.slow
def test_a_file_for_onnxruntime_has_the_bands(config, folder, tmp_path):
    pytest.importorskip("onnxruntime")
    update_each(box_predictors(config.model.roi_heads), test_score_thresh=0.01)
    torch.manual_seed(0)
    model, bands = instantiate(config.model).eval(), bands_of(config)
    resize = instantiate(config.dataloader.test.mapper.augmentations)
    predictor = Predictor(
        model, augmentations=resize, categories=(), score_threshold=0.0, bands=bands
    )
    file, image = tmp_path / "bands.onnx", folder / "val/000001.tif"
    differences = export_detector(predictor, file, image=image, form="onnx")
    assert differences["pred_boxes"] < 1e-2
    facts = json.loads((tmp_path / "bands.onnx.json").read_text())
    assert facts["bands"] == bands.as_json()
    assert facts["input"].startswith("(B, 5, H, W)")


def test_a_run_that_continues_has_its_bands(config, data, tiny_config):
    bands = replace(bands_of(config), high=(7.0,) * 5)
    cfg = tiny_config()
    apply_data(cfg, data)
    before = copy.deepcopy(config)
    before.dataloader.test.mapper.bands = bands.as_json()
    apply_bands(cfg, BandRequest(count=5), data, before)
    assert bands_of(cfg) == bands
    assert continue_bands(bands, BandRequest(count=5)) == bands
    assert continue_bands(None, None) is None
    assert continue_bands(bands, BandRequest(count=5, range=",".join(["p1:p99"] * 5))) == bands
    others = (BandRequest(count=4), BandRequest(count=5, range="0:9"), None)
    percentiles = BandRequest(count=5, range="p2:p98")
    for other in (*others, percentiles, BandRequest(count=5, show="1,2,3")):
        with pytest.raises(ValueError, match=rf"to 7.*{other or 'RGB'}"):
            continue_bands(bands, other)


def test_another_number_of_bands_is_refused(data, tiny_config):
    with pytest.raises(ValueError, match=r"000001.tif.*5.*3"):
        apply_bands(tiny_config(), BandRequest(count=3), data)
    with pytest.raises(ValueError, match="--bands 3"):
        apply_bands(tiny_config(), BandRequest(count=3), None)

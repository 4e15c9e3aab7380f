"""Own data in COCO format: what is read, refused, changed in a recipe, trained and remembered."""

import numpy as np
import pycocotools.mask as mask_api
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from eva_data.detection.coco import read_coco
from eva_data.detection.resolve import resolve
from eva_detection import command_line
from eva_detection.config.own_data import apply_data, read_own_data
from eva_detection.config.settings import load_config
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.training.trainer import DetectionTrainer

LVIS = "lvis/cascade_mask_rcnn_vitdet_eva_g_1280"
COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1280"
SMALL = "custom/cascade_mask_rcnn_vitdet_eva_{}_24gb"
CATEGORIES = {3: "cat", 7: "dog", 8: "owl"}
NAMED = [{"id": key, "name": name} for key, name in reversed(CATEGORIES.items())]
SQUARE = [[20, 20, 60, 20, 60, 60, 20, 60]]


def _rle(box):
    x, y, width, height = box
    bits = np.zeros((96, 128), dtype=np.uint8, order="F")
    bits[y : y + height, x : x + width] = 1
    code = mask_api.encode(bits)
    return {"size": [96, 128], "counts": code["counts"].decode()}


def _annotation(image=1, category=3, box=(20, 20, 40, 40), **more):
    return {"image_id": image, "category_id": category, "bbox": list(box)} | more


@pytest.fixture
def write(write_coco):
    """`write_coco` with three categories whose ids have gaps and are not in order."""

    def write_file(annotations, *, categories=NAMED, **settings):
        return write_coco(annotations, categories=categories, **settings)

    write_file.pictures = write_coco.pictures
    return write_file


@pytest.fixture
def flags(write):
    """Function: the parsed command line for these files."""

    def parse(train=None, val=None, *more):
        arguments = ["--config-file", "unused", *more]
        for part, file in (("train", train), ("val", val)):
            if file:
                arguments += [f"--{part}-annotations", str(file)]
                arguments += [f"--{part}-images", str(write.pictures)]
        arguments += ["--allow-empty-classes"] if train else []
        return command_line.parse(arguments)

    return parse


@pytest.fixture
def apply(flags, tiny_config):
    """Function: the tiny config with these files, their data, and the notes."""

    def apply_to_tiny(train, val=None, *more, cfg=None):
        cfg = cfg or tiny_config()
        data = resolve(flags(train, val or train, *more).data)
        return cfg, data, "\n".join(apply_data(cfg, data))

    return apply_to_tiny


def _step(cfg, data):
    """One optimizer step on the data of a config: images, losses and the model."""
    torch.manual_seed(0)
    records = EvaluationSet(cfg, data).build_dataset("train")
    mapper = instantiate(cfg.dataloader.train.mapper)
    model = instantiate(cfg.model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    samples = [mapper(record) for record in records]
    trainer = DetectionTrainer(model, [samples], optimizer)
    with EventStorage(0) as trainer.storage:
        trainer.run_step()
        latest = trainer.storage.latest()
    losses = {name: value for name, (value, _) in latest.items() if "loss" in name}
    return samples, losses, model


@pytest.mark.parametrize(("flag", "masks"), [("iscrowd", True), ("ignore", False)])
def test_crowds_and_empty_images_in_training(flag, masks, write, apply):
    crowd = _annotation(2, segmentation=_rle((0, 0, 90, 90)), **{flag: 1})
    one = _annotation(1, segmentation=SQUARE) if masks else _annotation(1)
    file = write([one, crowd, crowd | {"image_id": 1}])
    cfg, data, notes = apply(file)
    assert "3 of them without objects; 1 objects of 3 classes" in notes
    assert "2 crowds" in notes
    assert len(_step(cfg, data)[0]) == 1
    cfg.dataloader.train.dataset.filter_empty = False
    samples, losses, _ = _step(cfg, data)
    assert [len(sample["instances"]) for sample in samples] == [1, 0, 0, 0]
    assert all(sample["instances"].has("gt_masks") is masks for sample in samples)
    assert np.isfinite(list(losses.values())).all()


def _score(file, found, categories=CATEGORIES, **options):
    """AP of one detection (class index, box) in each of these images."""
    evaluator = CustomEvaluator(read_coco(file), categories, distributed=False, **options)
    evaluator.reset()
    for key, (label, box) in found.items():
        one = Instances((96, 128))
        x, y, width, height = box
        one.pred_boxes = Boxes(torch.tensor([[x, y, x + width, y + height]]).float())
        one.scores, one.pred_classes = torch.tensor([0.9]), torch.tensor([label])
        evaluator.process([{"image_id": key}], [{"instances": one}])
    return evaluator.evaluate()["bbox"]


def test_a_crowd_is_respected_in_evaluation(write):
    """A detection in it counts neither way."""
    right, crowd = _annotation(1), _annotation(2, box=(0, 0, 90, 90), iscrowd=1)
    found = {1: (0, (20, 20, 40, 40)), 2: (0, (10, 10, 50, 50))}
    assert _score(write([right, crowd]), found)["AP"] == pytest.approx(100)
    assert _score(write([right, crowd | {"iscrowd": 0}]), found)["AP"] < 60


def test_evaluation_on_a_part_of_the_classes(write):
    """The order of the classes is that of the training file, and absent ones do not count."""
    file = write([_annotation(1, 8)], categories=[{"id": 8, "name": "owl"}])
    scores = _score(file, {1: (2, (20, 20, 40, 40))})
    assert scores["AP"] == scores["AP-owl"] == pytest.approx(100)
    assert np.isnan(scores["AP-cat"])


@pytest.mark.parametrize("recipe", [COCO, LVIS, SMALL.format("g")])
def test_classes_and_rules_of_every_recipe(recipe, write, apply, load_config):
    file = write([_annotation(segmentation=SQUARE)])
    cfg, data, notes = apply(file, cfg=load_config(recipe))
    assert "3 classes (id, name): 3 cat, 7 dog, 8 owl" in notes
    assert ("No federated loss" in notes) == (recipe == LVIS)
    with torch.device("meta"):
        heads = instantiate(cfg.model).roi_heads
    for predictor in heads.box_predictor:
        assert predictor.num_classes == 3
        assert predictor.cls_score.out_features == 4
        assert not predictor.use_fed_loss
    assert heads.mask_head.predictor.out_channels == 3
    assert isinstance(EvaluationSet(cfg, data).evaluator, CustomEvaluator)
    if recipe == LVIS:  # repeat factors of own data
        cfg.dataloader.train.dataset = EvaluationSet(cfg, data).build_dataset("train")
        sampler = instantiate(cfg.dataloader.train.sampler)
        assert len(sampler._int_part) == 1


def test_frozen_blocks_stay_as_they_are(write, apply):
    cfg, data, _ = apply(write([_annotation()]))
    cfg.model.backbone.freeze_blocks = 1
    torch.manual_seed(0)
    before = instantiate(cfg.model).state_dict()
    after = _step(cfg, data)[2].state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert "backbone.net.blocks.1.attn.qkv.weight" in changed
    assert not any(name.startswith("backbone.net.blocks.0.") for name in changed)
    assert "backbone.net.pos_embed" not in changed
    cfg.model.backbone.freeze_blocks = 3
    with pytest.raises(ValueError, match=r"freeze_blocks.*0\.\.2.*3"):
        instantiate(cfg.model)


def test_size_and_epochs_of_any_recipe_and_what_does_not_fit_it(write, tmp_path):
    small = _annotation(2, box=(20, 20, 2, 2))
    file = write([_annotation(1, segmentation=SQUARE)] + [small] * 120)

    def loaded(recipe, *words):
        data = [f"--{part}-annotations={file}" for part in ("train", "val")]
        data += [f"--{part}-images={write.pictures}" for part in ("train", "val")]
        settings = ["train.init_checkpoint=", f"train.output_dir={tmp_path}", "train.device=cuda"]
        arguments = [recipe, "--boxes-only", "--allow-empty-classes", *data, *settings, *words]
        cfg, _, notes = load_config(command_line.parse(arguments))
        return cfg, " ".join(notes)

    cfg, notes = loaded(COCO, "--image-size", "320", "--epochs", "96")
    assert cfg.model.backbone.square_pad == 320
    assert cfg.dataloader.test.mapper.augmentations[0].max_size == 320
    assert cfg.dataloader.train.mapper.augmentations[-1].crop_size == [320, 320]
    assert cfg.train.max_iter == 96 * 2 / 64  # two images have objects
    assert cfg.lr_multiplier.scheduler.milestones == [int(3 * 40000 / 45000)]
    assert instantiate(cfg.lr_multiplier)(0.5) == 1
    assert "1 of 4 images have more objects, up to 120, than the 100 detections" in notes
    assert "the median box has 5.0 px" in notes
    assert "twice the training size" not in notes
    assert "1 of 4 images for evaluation have more than 100 objects of a class (up to 120)" in notes
    counted = "dataloader.evaluator.max_dets_per_image=200"
    cfg, notes = loaded(COCO, counted)
    assert "for evaluation have more" not in notes
    request = command_line.parse(
        [COCO, "--eval-only", f"--val-annotations={file}", f"--val-images={write.pictures}"]
    )
    apply_data(cfg, resolve(request.data))
    assert cfg.dataloader.evaluator.max_dets_per_image == 200
    cfg, notes = loaded(SMALL.format("l"), "--epochs", "96", "model.backbone.square_pad=32")
    assert cfg.train.max_iter == 96 * 2 / 16
    assert "4 of 4 images are more than twice the training size of 32 px, up to 128 px" in notes
    with pytest.raises(SystemExit):
        loaded(COCO, "--epochs", "2", "train.max_iter=7")


def test_a_saved_config_is_of_data_whose_classes_may_be_empty(write):
    """Which its run was allowed: it continues, and is evaluated, by its folder alone."""
    file = {"annotations": str(write([_annotation(1)])), "images": str(write.pictures)}
    saved = OmegaConf.create({"own_data": {"train": file, "val": file, "boxes_only": True}})
    saved.own_data.tile = None
    parts = read_own_data(saved, command_line.TrainingRequest(recipe="unused")).parts
    assert len(parts["train"].categories) > 1

"""Own data in COCO format: what is read, refused, changed in a recipe, trained and remembered."""

import argparse
import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_api
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from eva_detection import command_line
from eva_detection.config.own_data import apply_custom_data
from eva_detection.config.settings import check_classes, images_per_step, scale_lr
from eva_detection.data.custom_data import load_records
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_detection.evaluation.report import read_metrics
from eva_detection.inference.predictor import Category, Predictor, find_categories
from eva_detection.training.trainer import DetectionTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]
LVIS = "lvis/cascade_mask_rcnn_vitdet_eva_g_1280"
COCO = "coco/cascade_mask_rcnn_vitdet_eva_g_1280"
SMALL = "custom/cascade_mask_rcnn_vitdet_eva_{}_24gb"
CATEGORIES = {3: "cat", 7: "dog", 8: "owl"}
NAMED = [{"id": key, "name": name} for key, name in reversed(CATEGORIES.items())]
SQUARE = [[20, 20, 60, 20, 60, 60, 20, 60]]


def _rle(box, *, compressed=True):
    x, y, width, height = box
    bits = np.zeros((96, 128), dtype=np.uint8, order="F")
    bits[y : y + height, x : x + width] = 1
    code = mask_api.encode(bits)
    if compressed:
        return {"size": [96, 128], "counts": code["counts"].decode()}
    flat = bits.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [96, 128], "counts": np.diff([0, *ends, flat.size]).tolist()}


def _annotation(image=1, category=3, box=(20, 20, 40, 40), **more):
    return {"image_id": image, "category_id": category, "bbox": list(box)} | more


# the forms that own files have masks in; one image each
FORMS = {
    "polygon": SQUARE,
    "rle": _rle((20, 20, 40, 40)),
    "counts": _rle((20, 20, 40, 40), compressed=False),
}


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
        return command_line.parse(arguments)

    return parse


@pytest.fixture
def apply(flags, tiny_config):
    """Function: the tiny config with these files, and the notes."""

    def apply_to_tiny(train, val=None, *more, cfg=None):
        cfg = cfg or tiny_config()
        notes = apply_custom_data(cfg, flags(train, val or train, *more))
        return cfg, "\n".join(notes)

    return apply_to_tiny


def _step(cfg):
    """One optimizer step on the data of a config: images, losses and the model."""
    torch.manual_seed(0)
    node = cfg.dataloader.train
    records, mapper = instantiate(node.dataset), instantiate(node.mapper)
    model = instantiate(cfg.model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    samples = [mapper(record) for record in records]
    trainer = DetectionTrainer(model, [samples], optimizer)
    with EventStorage(0) as trainer.storage:
        trainer.run_step()
        latest = trainer.storage.latest()
    losses = {name: value for name, (value, _) in latest.items() if "loss" in name}
    return samples, losses, model


@pytest.mark.parametrize("forms", [["polygon"], ["rle"], ["counts"], ["polygon", "rle", "counts"]])
def test_masks_in_every_form_are_trained(forms, write, apply):
    file = write(
        [_annotation(i, segmentation=FORMS[form]) for i, form in enumerate(forms, start=1)]
    )
    cfg, notes = apply(file)
    assert "mask_head" in cfg.model.roi_heads
    assert f"{len(forms)} with masks ({len(forms) - forms.count('polygon')} RLE)" in notes
    cfg.dataloader.train.mapper.augmentations = []  # masks stay where they are
    samples, losses, _ = _step(cfg)
    assert len(samples) == len(forms)  # images without objects are left out
    for sample in samples:
        one = sample["instances"]
        assert one.gt_classes.tolist() == [0]
        bits = one.gt_masks.tensor[0]
        assert bits.sum() == 40 * 40
        assert bits[20:60, 20:60].all()
        assert one.gt_boxes.tensor.tolist() == [[20, 20, 60, 60]]
    assert losses["loss_mask"] > 0


@pytest.mark.parametrize(
    ("masks", "chosen"), [(["polygon"], "polygon"), (["polygon", "rle"], "bitmask")]
)
def test_the_mask_format_follows_the_file(masks, chosen, write, apply, load_config):
    """detectron2's polygon format refuses RLE."""
    file = write([_annotation(segmentation=FORMS[form]) for form in masks])
    cfg, _ = apply(file, cfg=load_config(COCO))
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert mapper.instance_mask_format == chosen
    (record,) = instantiate(cfg.dataloader.train.dataset)
    for _ in range(4):  # large-scale jitter of the real recipe
        sample = mapper(copy.deepcopy(record))
        assert len(sample["instances"]) <= len(masks)
        assert len(sample["instances"].gt_masks) == len(sample["instances"])


@pytest.mark.parametrize("nothing", [{}, {"segmentation": []}, {"segmentation": [[]]}])
def test_boxes_alone(nothing, write, apply):
    """Without areas, crowd flags and ids, as exporters of boxes write it."""
    file = write([_annotation(1, **nothing), _annotation(2, 8, **nothing)])
    cfg, notes = apply(file)
    assert "no mask head: no object of" in notes
    assert not any("mask" in name for name in cfg.model.roi_heads)
    samples, losses, _ = _step(cfg)
    assert [sample["instances"].gt_classes.tolist() for sample in samples] == [[0], [2]]
    assert "loss_mask" not in losses
    assert losses["loss_cls_stage2"] > 0


def test_boxes_alone_where_asked_for(write, apply, load_config):
    file = write([_annotation(segmentation=SQUARE), _annotation()])
    recipe = load_config("coco/cascade_mask_rcnn_vitdet_eva_g_1536_seg")
    cfg, notes = apply(file, None, "--boxes-only", cfg=recipe)
    assert "no mask head: --boxes-only" in notes
    assert not any("mask" in name for name in cfg.model.roi_heads)  # no maskness either


def test_some_masks_are_refused(write, apply):
    file = write([_annotation(segmentation=SQUARE), _annotation(2, segmentation=[[1, 2, 3, 4]])])
    with pytest.raises(ValueError, match=r"1 of 2 objects of .* have no usable mask .*image 2, 2"):
        apply(file)


def test_boxes_alone_leave_damaged_masks_unread(write, apply):
    """Also where the saved config is read, by training and by evaluation."""
    file = write([_annotation(segmentation={"size": [1, 1], "counts": "?"})])
    with pytest.raises(ValueError, match="has an RLE of size"):
        apply(file)
    cfg, _ = apply(file, None, "--boxes-only")
    (record,) = instantiate(cfg.dataloader.train.dataset)
    assert [sorted(one) for one in record["annotations"]] == [
        ["bbox", "bbox_mode", "category_id", "iscrowd"]
    ]
    cfg.dataloader.evaluator.distributed = False
    instantiate(cfg.dataloader.evaluator)._truth()


def test_a_set_of_yolo_becomes_a_file_of_the_run(write, flags, tiny_config, tmp_path):
    """Nothing is written before the run has its folder; afterwards the config says it all."""
    write([])
    root = tmp_path / "yolo"
    shutil.copytree(write.pictures, root / "images")
    (root / "labels").mkdir()
    names = sorted(path.stem for path in (root / "images").iterdir())
    for name in names:
        (root / f"labels/{name}.txt").write_text("1 0.25 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("names: [cat, 'a: dog']\ntrain: images\n")
    args = flags(None, None, "--data", str(root), "--val-share", "0.4")
    args.opts = [f"train.output_dir={tmp_path / 'run'}"]
    cfg = tiny_config()
    notes = "\n".join(apply_custom_data(cfg, args))
    assert "is read as YOLO" in notes
    assert "no mask head: no object of" in notes
    assert not (tmp_path / "run").exists()
    args.resolved.write(continues=False)
    parts = [instantiate(cfg.dataloader[part].dataset) for part in ("train", "test")]
    (train, val) = ({Path(record["file_name"]) for record in part} for part in parts)
    assert train | val == {root / "images" / f"{name}.png" for name in names}
    assert train
    assert val
    assert not train & val
    assert parts[0][0]["annotations"][0]["bbox"] == [0, 24, 64, 48]
    assert cfg.dataloader.test.dataset.categories == {1: "cat", 2: "a: dog"}
    evaluation = tiny_config()
    args.eval_only = True
    apply_custom_data(evaluation, args)
    args.resolved.write(continues=False)
    assert evaluation.dataloader.test.dataset.annotations.endswith("run/data/evaluated.json")
    assert json.loads((tmp_path / "run/data/evaluated.json").read_text()) == json.loads(
        (tmp_path / "run/data/val.json").read_text()
    )


def test_some_masks_for_evaluation_mean_box_ap(write, apply):
    train = write([_annotation(segmentation=SQUARE)])
    val = write([_annotation(segmentation=SQUARE), _annotation()], name="val")
    cfg, notes = apply(train, val)
    assert "No mask AP: 1 of 2 objects" in notes
    assert list(cfg.dataloader.evaluator.tasks) == ["bbox"]
    assert "mask_head" in cfg.model.roi_heads


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("flag", ["iscrowd", "ignore"])
def test_crowds_and_empty_images_in_training(flag, masks, write, apply):
    crowd = _annotation(2, segmentation=_rle((0, 0, 90, 90)), **{flag: 1})
    one = _annotation(1, segmentation=SQUARE) if masks else _annotation(1)
    file = write([one, crowd, crowd | {"image_id": 1}])
    cfg, notes = apply(file)
    assert "3 of them without objects; 1 objects of 3 classes" in notes
    assert "2 crowds" in notes
    assert len(_step(cfg)[0]) == 1
    cfg.dataloader.train.dataset.filter_empty = False
    samples, losses, _ = _step(cfg)
    assert [len(sample["instances"]) for sample in samples] == [1, 0, 0, 0]
    assert all(sample["instances"].has("gt_masks") is masks for sample in samples)
    assert np.isfinite(list(losses.values())).all()


def test_a_batch_of_nothing_but_empty_images_with_polygons(write, apply):
    cfg, _ = apply(write([_annotation(segmentation=SQUARE)]))
    cfg.dataloader.train.dataset.filter_empty = False
    cfg.dataloader.train.mapper.instance_mask_format = "polygon"
    mapper = instantiate(cfg.dataloader.train.mapper)
    empty = [mapper(record) for record in instantiate(cfg.dataloader.train.dataset)[1:]]
    model = instantiate(cfg.model)
    with EventStorage(0):
        losses = model(empty)
    sum(losses.values()).backward()
    assert losses["loss_mask"] == 0


def _score(file, found, categories=CATEGORIES, **options):
    """AP of one detection (class index, box) in each of these images."""
    evaluator = CustomEvaluator(
        annotations=str(file), categories=categories, distributed=False, **options
    )
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


def test_files_that_do_not_belong_together(write, apply, flags, tiny_config):
    train = write([_annotation(segmentation=SQUARE)])
    for categories, message in (
        ([{"id": 3, "name": "Cat"}], r"has category 3 'Cat'; in .*train\.json it is 'cat'"),
        ([*NAMED, {"id": 9, "name": "cow"}], r"category 9 'cow'; in .*train\.json it is missing"),
    ):
        val = write([_annotation()], name="val", categories=categories)
        with pytest.raises(ValueError, match=message):
            apply(train, val)
    with pytest.raises(ValueError, match=r"--val-annotations, --val-images missing: name"):
        apply_custom_data(tiny_config(), flags(train))
    with pytest.raises(ValueError, match="--boxes-only and"):
        apply_custom_data(tiny_config(), flags(None, None, "--boxes-only"))
    with pytest.raises(ValueError, match="no objects to train on"):
        apply(write([_annotation(iscrowd=1)], name="crowd"))


def test_a_file_that_changed_after_the_config_was_saved(write):
    file = write([_annotation()])
    with pytest.raises(ValueError, match="category 8 'owl'; in the config it is missing"):
        load_records(
            annotations=str(file),
            images=str(write.pictures),
            categories={3: "cat", 7: "dog"},
            filter_empty=True,
        )


def test_nothing_changes_without_flags(tiny_config):
    cfg, before = tiny_config(), tiny_config()
    assert apply_custom_data(cfg, argparse.Namespace(eval_only=False)) == []
    assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(before)
    check_classes(cfg)


@pytest.mark.parametrize("recipe", [COCO, LVIS, SMALL.format("g")])
def test_classes_and_rules_of_every_recipe(recipe, write, apply, load_config):
    file = write([_annotation(segmentation=SQUARE)])
    cfg, notes = apply(file, cfg=load_config(recipe))
    assert "3 classes (id, name): 3 cat, 7 dog, 8 owl" in notes
    assert ("No federated loss" in notes) == (recipe == LVIS)
    with torch.device("meta"):
        heads = instantiate(cfg.model).roi_heads
    for predictor in heads.box_predictor:
        assert predictor.num_classes == 3
        assert predictor.cls_score.out_features == 4
        assert not predictor.use_fed_loss
    assert heads.mask_head.predictor.out_channels == 3
    assert isinstance(instantiate(cfg.dataloader.evaluator), CustomEvaluator)
    if recipe == LVIS:  # repeat factors of own data
        sampler = instantiate(cfg.dataloader.train.sampler)
        assert len(sampler._int_part) == 1
    cfg.model.roi_heads.num_classes = 80
    with pytest.raises(ValueError, match="num_classes=80, but the data has 3 classes"):
        check_classes(cfg)


def test_scale_lr(load_config):
    cfg = load_config(COCO, "dataloader.train.total_batch_size=4", "train.accumulate=2")
    note = scale_lr(cfg, reference=64, overrides=["train.accumulate=2"])
    assert cfg.optimizer.lr == cfg.optimizer.params.base_lr == 2.5e-5 * 8 / 64
    assert "2.5e-05 * 8 / 64 = 3.125e-06" in note
    with pytest.raises(ValueError, match="give one of the two"):
        scale_lr(cfg, reference=64, overrides=["optimizer.lr=1e-4"])


def test_the_recipe_for_a_small_card(load_config):
    cfg = load_config(SMALL.format("g"))
    assert images_per_step(cfg) == 16
    with torch.device("meta"):
        model = instantiate(cfg.model)
    net = model.backbone.net
    assert net.activation_checkpointing
    assert net.blocks[3].attn.rel_pos_h.shape[0] == 2 * 1024 // 16 - 1
    trained = [any(p.requires_grad for p in block.parameters()) for block in net.blocks]
    assert trained == [False] * 20 + [True] * 20
    assert not net.pos_embed.requires_grad
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == pytest.approx(567e6, rel=0.005)  # the docstring's arithmetic
    large = load_config(SMALL.format("l"))
    with torch.device("meta"):
        model = instantiate(large.model)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == pytest.approx(
        360e6, rel=0.005
    )
    assert large.optimizer.lr == 2.5e-5
    assert large.optimizer.params.lr_factor_func("backbone.net.pos_embed") == pytest.approx(0.8**25)
    assert large.model.backbone.square_pad == cfg.model.backbone.square_pad == 1024


def test_frozen_blocks_stay_as_they_are(write, apply):
    cfg, _ = apply(write([_annotation()]))
    cfg.model.backbone.freeze_blocks = 1
    torch.manual_seed(0)
    before = instantiate(cfg.model).state_dict()
    after = _step(cfg)[2].state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert "backbone.net.blocks.1.attn.qkv.weight" in changed
    assert not any(name.startswith("backbone.net.blocks.0.") for name in changed)
    assert "backbone.net.pos_embed" not in changed
    cfg.model.backbone.freeze_blocks = 3
    with pytest.raises(ValueError, match=r"freeze_blocks must be in 0\.\.2, got 3"):
        instantiate(cfg.model)


@pytest.fixture
def own_copy(demo_data, tmp_path):
    """The demo set under another name, with three classes of odd ids, in another folder."""
    source = demo_data / "digit_scenes" / "coco"
    ids = (30, 10, 20)
    names = {10: "one", 20: "two", 30: "zero"}
    for part in ("train", "val"):
        data = json.loads((source / "annotations" / f"instances_{part}.json").read_text())
        first = min(entry["id"] for entry in data["categories"])
        for entry in data["annotations"]:
            entry["category_id"] = ids[(entry["category_id"] - first) % 3]
        data["categories"] = [{"id": key, "name": name} for key, name in names.items()]
        (tmp_path / f"{part}.json").write_text(json.dumps(data))
    return tmp_path, source, names


def _flags_of(folder, source, parts=("train", "val")):
    return [
        text
        for part in parts
        for text in (
            *(f"--{part}-annotations", f"{part}.json"),  # relative to where it runs
            *(f"--{part}-images", str(source / part)),
        )
    ]


def test_trained_by_two_processes_continued_by_one_and_used(
    start, finish, repository, tiny_overrides, own_copy, tmp_path
):
    """One story, as it happens to users."""
    folder, source, names = own_copy
    recipe = repository / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
    program, run = str(repository / "detection/train_net.py"), tmp_path / "run"
    shared = (*tiny_overrides, f"train.output_dir={run}")

    def train(steps, *more):
        data = (*_flags_of(folder, source), "--scale-lr", "--config-file", str(recipe), *more)
        schedule = (f"train.max_iter={steps}", "train.checkpointer.period=2")
        return finish(start(program, *data, *shared, *schedule), timeout=180)

    text = train(2, "--num-gpus", "2", "--dist-url", "auto")
    assert "--scale-lr: optimizer.lr = 0.001 * 2 / 8 = 0.00025" in text
    assert f"Own data: {folder / 'train.json'}: 16 images" in text
    assert "The detector has 3 classes (id, name): 10 one, 20 two, 30 zero" in text
    assert "resume   after iteration 2 of 3 (" in train(3, "--resume")
    assert [entry["iteration"] for entry in read_metrics(run)] == [0, 1, 2, 3]
    assert set(json.loads((run / "results.json").read_text())) == {"bbox", "segm"}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "6 images" in page
    assert [f">{name}<" in page for name in ("one", "two", "zero", "Worst images")] == [True] * 4

    cfg = LazyConfig.load(str(run / "config.yaml"))
    assert find_categories(cfg) == tuple(Category(*pair) for pair in names.items())
    predictor = Predictor.from_run(run, score_threshold=0.0)
    assert predictor.class_names == ("one", "two", "zero")
    found = predictor(min((source / "val").iterdir()))
    assert set(found.pred_classes.tolist()) <= {0, 1, 2}
    assert len(instantiate(cfg.dataloader.test)) == 6  # without the flags
    assert instantiate(cfg.dataloader.evaluator)._metadata.thing_classes == list(names.values())


def test_evaluation_with_the_flags_of_val_alone(write, flags, tiny_config, apply):
    file = write([_annotation(segmentation=SQUARE)], name="val")
    cfg = tiny_config()
    train_before = copy.deepcopy(cfg.dataloader.train.dataset)
    apply_custom_data(cfg, flags(None, file, "--eval-only"))
    assert cfg.model.roi_heads.num_classes == 3
    assert cfg.dataloader.train.dataset == train_before
    assert len(instantiate(cfg.dataloader.test)) == 4

    saved, _ = apply(file)  # a saved config keeps its classes and masks
    part = write([_annotation(category=8)], name="part", categories=NAMED[:1])
    apply_custom_data(saved, flags(None, part, "--eval-only"))
    assert saved.model.roi_heads.num_classes == 3
    assert "mask_head" in saved.model.roi_heads
    assert list(saved.dataloader.evaluator.tasks) == ["bbox"]


def test_weights_of_another_detector(write, apply, make_tiny_detector, tmp_path, caplog):
    """Ten classes with masks, then three with boxes: the rest is taken over."""
    from eva_detection.model.weights import load_initial_weights

    before = make_tiny_detector()
    torch.save({"model": before.state_dict()}, tmp_path / "ten.pth")
    cfg, _ = apply(write([_annotation()]))
    model = instantiate(cfg.model)
    report = load_initial_weights(model, str(tmp_path / "ten.pth"))
    assert {name.split(".")[1] for name in report.skipped} == {"mask_head", "box_predictor"}
    assert all("cls_score" in name for name in report.missing)
    head = "roi_heads.box_head.0.fc1.weight"
    assert torch.equal(model.state_dict()[head], before.state_dict()[head])


def test_class_names_survive_the_saved_config(write, apply, tmp_path):
    names = [{"id": 1, "name": "Kätzchen: groß"}, {"id": 2, "name": "yes"}, {"id": 5, "name": "5"}]
    file = write([_annotation(category=1)], categories=names)
    cfg, _ = apply(file)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    found = find_categories(LazyConfig.load(str(tmp_path / "config.yaml")))
    assert found == ((1, "Kätzchen: groß"), (2, "yes"), (5, "5"))
    assert Path(cfg.dataloader.test.dataset.annotations).is_absolute()

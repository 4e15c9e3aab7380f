"""Own data in a config: `--data`, `--train-annotations` and the like, in any recipe.

The config states files and classes afterwards, so that what a run saves of it is all that an
evaluation, a continuation or a demo needs.
"""

from detectron2.data import DatasetMapper
from omegaconf import DictConfig, OmegaConf

from eva_data.bands import BandRequest, continue_bands, measure_bands
from eva_data.classes import list_names
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.detection.resolved import NO_FEDERATED_LOSS, DetectionData
from eva_detection.building import bands_of, image_side, target_of
from eva_detection.command_line import TrainingRequest
from eva_detection.config.files import literal, own_keypoints
from eva_detection.config.recipes import (
    box_predictors,
    drop_masks,
    set_bands,
    set_keypoints,
    update_each,
)
from eva_detection.data.mapper import ImageMapper
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_runs.processes import run_on_main_rank


def read_own_data(cfg: DictConfig, request: TrainingRequest) -> DetectionData | None:
    """Read the own data of a request, or those that a saved config has its detector from."""
    if request.data or "own_data" not in cfg:
        return resolve(request.data) if request.data else None
    parts = ("val",) if request.evaluates else ("train", "val")
    return resolve(DataRequest.from_json(OmegaConf.to_object(cfg.own_data), parts))


def apply_data(cfg: DictConfig, data: DetectionData) -> list[str]:
    """Make the detector of a config one for own data; return what was changed."""
    train, heads, loaders = data.parts.get("train"), cfg.model.roi_heads, cfg.dataloader
    saved, has_masks = OmegaConf.select(cfg, "own_data.categories"), "mask_head" in heads
    targets = data.for_detector(saved, masks=has_masks)
    points, notes = _choose_keypoints(cfg, data), targets.notes
    cfg.own_data = {"categories": {k: literal(name) for k, name in targets.categories.items()}}
    if points:
        cfg.own_data.keypoints = literal(points.as_json())
        notes += points.describe(training=train is not None)
    set_keypoints(cfg.model, loaders, points)
    for node in (loaders.train, loaders.test):
        node.dataset.pop("names", None)
        if target_of(node.mapper) is DatasetMapper:
            node.mapper["_target_"] = ImageMapper
    limit = (loaders.get("evaluator") or {}).get("max_dets_per_image")
    loaders.evaluator = {"output_dir": "${train.output_dir}/inference"}  # and see `EvaluationSet`
    if limit:
        loaders.evaluator.max_dets_per_image = limit
    if has_masks and not targets.masks:
        drop_masks(cfg.model, loaders)
    elif has_masks:
        if train is not None and train.rle_count:
            loaders.train.mapper.instance_mask_format = "bitmask"  # takes polygons as well
        if not targets.scores_masks:
            loaders.evaluator.tasks = ["bbox"]
    return notes + _set_classes(cfg.model, len(targets.categories))


def find_misfits(cfg: DictConfig, data: DetectionData) -> list[str]:
    """Find what of the data does not fit the final config, each in one line."""
    heads, lines = cfg.model.roi_heads, list[str]()
    if "train" in data.parts:
        most = box_predictors(heads)[0].get("test_topk_per_image", 100)
        if heads.get("use_soft_nms", False):
            most = heads.get("max_detections") or 0
        lines += data.parts["train"].misfits(side=image_side(cfg), most=most)
    most = cfg.dataloader.evaluator.get("max_dets_per_image") or CustomEvaluator.default_max_dets
    crowded = data.parts["val"].misfits_of_scores(most)
    return lines + [f"{line}: raise dataloader.evaluator.max_dets_per_image" for line in crowded]


def apply_bands(
    cfg: DictConfig,
    request: BandRequest | None,
    data: DetectionData | None,
    before: DictConfig | None = None,
) -> list[str]:
    """Put measured bands into a config, or those `before`, in the config of a run that continues.

    Returns:
        What was done.
    """
    bands = continue_bands(bands_of(before), request) if before else None
    if request and not bands:
        if data is None or "train" not in data.parts:
            raise ValueError(f"--bands {request.count} is for own data to train on: name --data")
        files, wanted = data.parts["train"].files, request
        bands = run_on_main_rank(lambda: measure_bands(files, wanted))
    if not bands:
        return []
    left_out = set_bands(cfg.model, cfg.dataloader, bands)
    lines = [f"bands {bands.describe()}"]
    if left_out:
        lines.append(f"augmentations left out, as they only know RGB: {list_names(left_out)}")
    return lines


def _choose_keypoints(cfg: DictConfig, data: DetectionData) -> KeypointNames | None:
    """Choose the keypoints that a detector learns of own data, or has learnt; None for none."""
    if "own_data" not in cfg or "train" in data.parts:
        return data.keypoints_for_detector(required="keypoint_head" in cfg.model.roi_heads)
    points, val = own_keypoints(cfg), data.parts["val"]
    if points and val.keypoints:
        val.check_keypoints(points, of="the detector")
    return points


def _set_classes(model: DictConfig, count: int) -> list[str]:
    heads, predictors = model.roi_heads, box_predictors(model.roi_heads)
    update_each([heads, *predictors], num_classes=count)
    if "mask_head" in heads:
        heads.mask_head.num_classes = count
    if not any(node.get("use_fed_loss", False) for node in predictors):
        return []
    update_each(predictors, use_fed_loss=False)
    return [NO_FEDERATED_LOSS]

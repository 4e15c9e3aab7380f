"""The training loader of a run, from the place in the data where a checkpoint ends."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detectron2.data import DatasetFromList, MetadataCatalog, build_detection_train_loader
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf, flag_override

from eva_detection.building import build, target_of
from eva_detection.data.records import (
    check_files,
    check_labels,
    describe_data,
    looks_at_files,
    records_of,
    registered_names,
)
from eva_detection.data.stream import SAMPLER, TrainStream, is_cut
from eva_report.terminal import SHOWN
from eva_runs.data_order import seed_everything
from eva_runs.sharing import share

if TYPE_CHECKING:
    from eva_detection.evaluation.test_set import EvaluationSet

logger = logging.getLogger(__name__)


def choose_seed(cfg: DictConfig, saved: Mapping[str, int]) -> int:
    """Choose the seed of a run, which its processes agree on; the same call on all."""
    configured = cfg.train.get("seed", -1)
    stated = configured is not None and configured >= 0
    seed = saved.get("seed", configured if stated else comm.shared_random_seed())
    if stated and configured != seed:
        message = "train.seed=%d has no effect: the run that continues began with seed %d"
        logger.warning(message, configured, seed)
    return int(seed)


def read_training_set(test_set: "EvaluationSet", seed: int) -> Any:
    """Read the training set and check its files, once on each machine, by a call of all."""
    cfg, node = test_set.cfg, test_set.cfg.dataloader.train

    def read() -> tuple[Any, str, dict[str, Any]]:
        dataset = test_set.build_dataset("train")
        records = records_of(dataset)
        if looks_at_files():
            most_bad = cfg.train.get("max_bad_images", 10)
            for problem in check_files(records, part="training", allowed=most_bad):
                logger.warning("An image that will be replaced: %s", problem)
            classes = OmegaConf.select(cfg, "model.roi_heads.num_classes")
            if isinstance(classes, int):
                check_labels(records, classes)
        problem = describe_data(cfg, "train", records) if records else ""
        names = registered_names(cfg, "train")
        metadata = {name: MetadataCatalog.get(name).as_dict() for name in names}
        if comm.get_world_size() > 1 and isinstance(dataset, list):
            dataset = DatasetFromList(dataset, copy=False)  # in arrays
        return dataset, problem, metadata

    # samplers without a seed of their own draw one when they are built
    seed_everything(seed, SAMPLER)
    if target_of(node) is not build_detection_train_loader:
        return None
    dataset, test_set.training, metadata = share(read)
    for name, fields in metadata.items():  # which reading sets
        MetadataCatalog.get(name).set(**fields)
    test_set.release_training()
    if test_set.training:
        logger.info("data     train: %s", test_set.training, extra=SHOWN)
    return dataset


def build_training_loader(
    cfg: DictConfig, dataset: Any, saved: Mapping[str, int], *, seed: int, steps: int
) -> Any:
    """Build the training loader, from the place in the data where a checkpoint ends."""
    node = cfg.dataloader.train
    if target_of(node) is not build_detection_train_loader:
        logger.warning(
            "dataloader.train is not detectron2's build_detection_train_loader: a continued run "
            "starts again in the data, and an image that cannot be read stops it"
        )
        return build(node, "dataloader.train")
    arguments = loader_arguments(node, "dataloader.train", dataset)
    arguments |= dict(seed=seed, max_bad_images=cfg.train.get("max_bad_images", 10))
    arguments |= _place(cfg, saved, arguments, steps=steps)
    loader = build(arguments, "dataloader.train", lambda options: TrainStream(**options))
    before = {name: value for name, value in saved.items() if name != "batches"}
    if {name: loader.order[name] for name in before} != before:
        message = (
            "The order of the data differs from the uninterrupted run: it had %s, this start %s"
        )
        logger.warning(message, before, loader.order)
    elif before and before["processes"] != comm.get_world_size():
        message = "continues on %d processes, began with %d: a step has %d batches of each"
        numbers = comm.get_world_size(), before["processes"], loader.accumulate
        logger.info(message, *numbers, extra=SHOWN)
    return loader


def _place(
    cfg: DictConfig, saved: Mapping[str, int], arguments: Mapping[str, Any], *, steps: int
) -> dict[str, Any]:
    """Find out how the data are drawn and grouped, as where the run began, and from which step.

    Another number of images in a step has an order of its own, and so has another number of
    processes with a sampler that cannot draw for others.
    """
    total, accumulate = arguments["total_batch_size"], cfg.train.get("accumulate", 1)
    now, count = {"accumulate": accumulate}, comm.get_world_size()
    if not saved:
        return now | {"start": steps}
    begun = saved["total_batch_size"], saved.get("accumulate", accumulate)
    seen = saved["batches"] * begun[0]  # images
    sampler = arguments.get("sampler")
    if begun[0] * begun[1] != total * accumulate or (
        saved["processes"] != count and not (sampler is None or is_cut(sampler))
    ):
        return now | {"start": -(-seen // (total * accumulate))}
    return {
        "total_batch_size": begun[0],
        "accumulate": begun[1],
        "processes_at_start": saved["processes"],
        "start": saved["batches"] // begun[1],
        # with --batch another one than the run began with
        "micro_batch": None if total == begun[0] else total // count,
    }


def loader_arguments(node: DictConfig, name: str, dataset: Any) -> dict[str, Any]:
    """Build what a loader takes; what else refers to the dataset gets the same records."""
    stated = node.dataset
    with flag_override(node, "allow_objects", True):
        # a config would make a config of a plain list
        plain = isinstance(dataset, list)
        node.dataset = DatasetFromList(dataset, False, serialize=False) if plain else dataset
        try:
            others = [key for key in node if key not in ("_target_", "dataset")]
            arguments = {key: build(node[key], f"{name}.{key}") for key in others}
        finally:
            node.dataset = stated
    return {"dataset": dataset} | arguments

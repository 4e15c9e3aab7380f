"""The data of a run: records that are read once, files that are looked at once, and loaders."""

import functools
import logging
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron2.data import (
    DatasetFromList,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.structures import BoxMode
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf, flag_override
from torch.utils.data import DataLoader

from eva_backbone.checkpoints.reading import list_names
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.resolve import DetectionData
from eva_data.files import load_json
from eva_data.progress import progress
from eva_detection.building import build, target_of
from eva_detection.data.stream import SAMPLER, TrainStream, is_cut
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_report.terminal import SHOWN, counted
from eva_runs.data_order import end_workers, guard_workers, seed_everything
from eva_runs.sharing import share

logger = logging.getLogger(__name__)

_THREADS = 16  # a network file system answers many questions at once
_LOOKS = 20_000  # images; a network file system takes some milliseconds for each


class EvaluationLoader:
    """A test loader whose workers leave signals to the run and end with the evaluation.

    A loader that is not torch's is used as it is.
    """

    def __init__(self, loader: Any, *, bar: bool = False) -> None:
        self._loader, self._bar = loader, bar
        self._batches: Any = None
        if isinstance(loader, DataLoader):
            guard_workers(loader)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self._batches = iter(self._loader)
        if self._bar:
            return progress(self._batches, total=len(self), title="evaluating", unit="batch")
        return self._batches

    def close(self) -> None:
        """Shut the workers down; they ignore signals."""
        end_workers(self._batches)
        self._batches = None


class EvaluationSet:
    """The test set of a run with its evaluator, built once for all evaluations."""

    __test__ = False  # for pytest: not a class of tests

    def __init__(self, cfg: DictConfig, data: DetectionData | None = None) -> None:
        self.cfg = cfg
        self.data = data  # own data; those of training until they are packed
        self.training = ""  # description of the training data, once they are read

    @property
    def is_scored(self) -> bool:
        """Whether the config has an evaluator."""
        return "evaluator" in self.cfg.dataloader

    def check(self) -> None:
        """Look at every image, once on each machine."""
        if self.is_scored and _looks_at_files():
            _ = self.evaluator, self._dataset

    @functools.cached_property
    def evaluator(self) -> Any:
        """The evaluator, which keeps the annotations once it has scored."""
        node = self.cfg.dataloader.evaluator
        if self.data is None:
            return build(node, "dataloader.evaluator")
        val, categories = self.data.parts["val"], self.cfg.own_data.categories
        make = functools.partial(CustomEvaluator, val, categories)
        return build({**node}, "dataloader.evaluator", lambda options: make(**options))

    @functools.cached_property
    def files(self) -> dict[Any, Path]:
        """The file of each image id."""
        return {
            record["image_id"]: Path(record["file_name"]) for record in records_of(self._dataset)
        }

    @functools.cached_property
    def labels(self) -> Any:
        """The labels in COCO's format: those of the evaluator, or else of the first file."""
        if hasattr(self.evaluator, "labels"):
            return self.evaluator.labels()
        return load_json(Path(annotation_files(self.cfg, "val")[0]))

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset, in detectron2's packed form, which takes little memory, if it builds it."""
        node = self.cfg.dataloader.test
        dataset = self.build_dataset("val")
        records = records_of(dataset)
        if self.is_scored and _looks_at_files():
            check_files(records, part="evaluation")
        if records:
            logger.info("data     val: %s", describe_data(self.cfg, "val", records), extra=SHOWN)
        if isinstance(dataset, list) and target_of(node) is build_detection_test_loader:
            return DatasetFromList(dataset, copy=False)
        return dataset

    def build_dataset(self, part: str) -> Any:
        """Build the dataset of "train" or "val"; of own data from the objects that were read."""
        name = "train" if part == "train" else "test"
        node = self.cfg.dataloader[name].dataset
        if self.data is None:
            return build(node, f"dataloader.{name}.dataset")
        filter_empty = part == "train" and node.get("filter_empty", True)
        categories = dict(self.cfg.own_data.categories)
        return make_records(self.data.parts[part], categories, filter_empty=filter_empty)

    def release_training(self) -> None:
        """Free the memory of own training data, which are packed."""
        if self.data is not None:
            self.data = replace(self.data, parts={"val": self.data.parts["val"]})

    @functools.cached_property
    def loader(self) -> EvaluationLoader:
        """The loader."""
        node = self.cfg.dataloader.test
        bar = comm.is_main_process() and bool(OmegaConf.select(self.cfg, "train.progress_bar"))
        arguments = _build_arguments(node, "dataloader.test", self._dataset)
        loader = build(arguments, "dataloader.test", lambda arguments: target_of(node)(**arguments))
        return EvaluationLoader(loader, bar=bar)


def choose_seed(cfg: DictConfig, saved: Mapping[str, int]) -> int:
    """Choose the seed of a run, which its processes agree on; the same call on all."""
    configured = cfg.train.get("seed", -1)
    stated = configured is not None and configured >= 0
    seed = saved.get("seed", configured if stated else comm.shared_random_seed())
    if stated and configured != seed:
        message = "train.seed=%d has no effect: the run that continues began with seed %d"
        logger.warning(message, configured, seed)
    return int(seed)


def read_training_set(test_set: EvaluationSet, seed: int) -> Any:
    """Read the training set and check its files, once on each machine, by a call of all."""
    cfg, node = test_set.cfg, test_set.cfg.dataloader.train

    def read() -> tuple[Any, str, dict[str, Any]]:
        dataset = test_set.build_dataset("train")
        records = records_of(dataset)
        if _looks_at_files():
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
    arguments = _build_arguments(node, "dataloader.train", dataset)
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


def _looks_at_files() -> bool:
    """Return whether this process looks at the data for all of its machine."""
    return comm.get_world_size() == 1 or comm.get_local_rank() == 0


def _build_arguments(node: DictConfig, name: str, dataset: Any) -> dict[str, Any]:
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


def make_records(
    dataset: CocoDataset, categories: Mapping[int, str], *, filter_empty: bool
) -> list[dict[str, Any]]:
    """Make detectron2's records: one for each image or tile, in the order of their ids.

    `categories` are the model's classes in the order of the ids. `filter_empty` leaves out images
    without objects, or with crowds alone.
    """
    dataset.check_categories(categories, of="the config")
    classes = {category: index for index, category in enumerate(sorted(categories))}
    records = {
        key: {
            "file_name": str(Path(dataset.folder) / entry["file_name"]),
            "image_id": key,
            "height": entry["height"],
            "width": entry["width"],
            "annotations": [],
            **{name: entry[name] for name in ("tile",) if name in entry},
        }
        for key, entry in sorted(dataset.images.items())
    }
    for annotation in dataset.objects:
        new = {"bbox_mode": BoxMode.XYWH_ABS, "category_id": classes[annotation["category_id"]]}
        fields = {
            key: value for key, value in annotation.items() if key not in ("image_id", "area")
        }
        if "keypoints" in fields:  # of pixels, whose middle detectron2 takes, as it does of COCO's
            halves = [0.5, 0.5, 0] * (len(fields["keypoints"]) // 3)
            points = zip(fields["keypoints"], halves, strict=True)
            fields["keypoints"] = [value + half for value, half in points]
        records[annotation["image_id"]]["annotations"].append(fields | new)
    listed = list(records.values())
    if filter_empty:
        listed = filter_images_with_only_crowd_annotations(listed)
    print_instances_class_histogram(listed, [categories[key] for key in sorted(categories)])
    return listed


def records_of(dataset: Any) -> Any:
    """Return the records of a dataset that a config builds; none for other kinds."""
    if isinstance(dataset, DatasetFromList):
        return dataset
    plain = isinstance(dataset, (list, tuple)) and all(
        isinstance(record, Mapping) for record in dataset
    )
    return dataset if plain else ()


def describe_data(cfg: DictConfig, part: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Describe a dataset in one line: numbers of images, objects, classes, and its file."""
    classes = OmegaConf.select(cfg, "own_data.categories")
    if classes is None:
        names = registered_names(cfg, part)
        classes = MetadataCatalog.get(names[0]).get("thing_classes", ()) if names else ()
    objects = sum(len(record.get("annotations", ())) for record in records)
    image = "tile" if records and "tile" in records[0] else "image"
    counts = {image: len(records), "object": objects, "class": len(classes)}
    summary = ", ".join(counted(count, unit) for unit, count in counts.items() if count)
    location = ", ".join(annotation_files(cfg, part))
    return f"{summary} ({location})" if location else summary


def registered_names(cfg: DictConfig, part: str) -> list[str]:
    """List the names of the registered datasets of "train" or "val"; none for own data."""
    loader = cfg.dataloader.train if part == "train" else cfg.dataloader.test
    names = loader.dataset.get("names")
    return [names] if isinstance(names, str) else [str(name) for name in names or ()]


def annotation_files(cfg: DictConfig, part: str) -> list[str]:
    """List the annotation files of "train" or "val"."""
    return _paths(cfg, part, "annotations", "json_file")


def image_folder(cfg: DictConfig) -> str | None:
    """Return the folder of the images for evaluation; None if it is not known."""
    return next(iter(_paths(cfg, "val", "images", "image_root")), None)


def _paths(cfg: DictConfig, part: str, own: str, registered: str) -> list[str]:
    if "own_data" in cfg:
        return [str(cfg.own_data[part][own])]
    values = [MetadataCatalog.get(name).get(registered) for name in registered_names(cfg, part)]
    return [str(value) for value in values if value]


def check_files(records: Sequence[Mapping[str, Any]], *, part: str, allowed: int = 0) -> list[str]:
    """Look at image files of a dataset, evenly over all, before hours are spent on the rest."""
    seen = (records[number] for number in range(0, len(records), -(-len(records) // _LOOKS) or 1))
    files = [record for record in seen if "://" not in str(record.get("file_name", "://"))]
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = list(pool.map(_find_problem, files))
    problems = [problem for problem in looks if problem]
    if len(problems) > allowed:
        raise ValueError(
            f"{len(problems)} of {len(files)} images looked at for {part} cannot be read: "
            f"{list_names(problems, 10)}; put them there, or take them out of the annotations"
        )
    return problems


def _find_problem(record: Mapping[str, Any]) -> str:
    """Say why the file of a record cannot be an image; nothing if it may be one."""
    name = f"{record['file_name']} (id {record.get('image_id')})"
    try:
        status = Path(record["file_name"]).stat()
    except OSError as error:
        return f"{name} ({error.strerror})"
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return f"{name} is no file, or empty"
    return ""


def check_labels(records: Iterable[Mapping[str, Any]], classes: int) -> None:
    """Refuse objects of a class that the detector does not have."""
    for record in records:
        for annotation in record.get("annotations", ()):
            if not 0 <= annotation["category_id"] < classes:
                raise ValueError(
                    f"{record.get('file_name')} (id {record.get('image_id')}) has an object of "
                    f"class {annotation['category_id']}, but "
                    f"model.roi_heads.num_classes={classes}: set "
                    "that to the number of classes of the data"
                )

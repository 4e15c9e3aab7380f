"""What `eva batch` computes of each record, by the predictors of the projects.

Shapes: B records, C channels, h x w patches, K classes.
"""

import io
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_command.label import load_model
from eva_data.coco_writing import writing_predictions
from eva_data.detection.keypoints import read_keypoints
from eva_data.detection.tiles import encode_mask
from eva_data.files import IMAGE_SUFFIXES, load_object, printable
from eva_data.records import Record, read_shard
from eva_data.writing import writing_dataset
from eva_runs.commands import lazy_import
from eva_runs.precision import DTYPES, precision_of, require_finite, resolve
from eva_runs.shard_workers import MODEL, Task
from eva_runs.shards import read_manifest, read_parts

Options = dict[str, Any]
_TEXT, _NUMBER = pa.string(), pa.float32()
_SIZE = {"width": pa.int32(), "height": pa.int32()}
_MASK = {"segmentation": _TEXT}  # counts of a compressed RLE of the image's size
_BOX = pa.list_(_NUMBER, 4)  # x, y, width, height in px
_OBJECT = {"bbox": _BOX, "score": _NUMBER, "category_id": pa.int64(), "category": _TEXT}
_SEGMENT = {"label": pa.int32(), "category": _TEXT, "share": _NUMBER}
_RANKED = pa.schema({"classes": pa.list_(_TEXT), "probabilities": pa.list_(_NUMBER)})
_LOADING = ("image_size", "mean", "std", "batch_size", "device", "precision")


def build(options: Options) -> Task:
    """Build the task that the options of a command name."""
    torch.set_grad_enabled(False)
    return {
        "features": _embeddings if options.get("kind") == "embedding" else _vit_features,
        "detect": _detect,
        "segment": _segment,
        "classify": _classify,
        "zero-shot": _zero_shot,
        "caption-score": _caption_score,
    }[options["task"]](options)


# ---- features ------------------------------------------------------------------------------------
def _vit_features(options: Options) -> Task:
    build = lazy_import("eva_classification.features:FeatureExtractor.from_options")
    extractor = build(Namespace(**options), options["device"])
    side, width = extractor.image_size // extractor.vit.patch_size, extractor.vit.embed_dim
    pooled = options["kind"] == "pooled"
    encode, shape = (extractor, [width]) if pooled else (extractor.patches, [width, side, side])
    return _features(_imaged(extractor.transform), encode, shape, options, extractor)


def _embeddings(options: Options) -> Task:
    clip, prepare = _clip(options, texts=options["texts"])
    encode = clip.images
    if options["texts"]:
        prepare, encode = lambda record: clip.tokens(record.name), clip.token_features
    encode = partial(encode, normalize=options["unit_length"])
    return _features(prepare, encode, [clip.embed_dim], options, clip.visual)


def _features(
    prepare: Any, encode: Callable[[Tensor], Tensor], shape: list[int], options: Options, model: Any
) -> Task:
    """Make a task of what gives features of a batch, whose `shape` the schema notes."""
    width, store = int(np.prod(shape)), options["store"]
    kind = pa.list_(pa.float16() if store == "fp16" else _NUMBER, width)

    def compute(prepared: list[Tensor]) -> dict[str, Any]:
        features = encode(torch.stack(prepared)).to(DTYPES[store])
        advice = f"use --precision fp32 and --store fp32, not {store}"
        require_finite(features, "features", advice=advice)
        values = pa.array(features.cpu().numpy().reshape(-1))
        return {"features": pa.FixedSizeListArray.from_arrays(values, width)}

    schema = pa.schema({"features": kind}).with_metadata({"shape": str(shape)})
    return Task(prepare, compute, schema, {"precision": precision_of(model)})


def _imaged(transform: Callable[[Any], Any]) -> Callable[[Record], Any]:
    return lambda record: transform(record.image())


def _clip(options: Options, *, texts: bool = True) -> tuple[Any, Any]:
    """Build a CLIP, and how it prepares an image."""
    load = lazy_import("eva_contrastive.inference.features:ClipFeatures.from_weights")
    settings = {name: options[name] for name in _LOADING}
    clip = load(options["weights"], texts=texts, **settings)
    return clip, _imaged(clip.transform)


# ---- objects and pixels --------------------------------------------------------------------------
def _predictor(options: Options, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Build a detector or segmentor, and say what its results depend on."""
    settings |= {name: options[name] for name in ("weights", "precision", "slice", "overlap")}
    default_device = "cuda" if torch.cuda.is_available() else "cpu"  # not the device of the run
    settings["device"] = default_device if options["device"] == "auto" else options["device"]
    model, categories = load_model(options["framework"], options["config"], **settings)
    model.require_rgb("eva batch")
    device = next(model.model.parameters()).device
    return model, {"precision": resolve(options["precision"], device), "categories": categories}


def _described(describe: Callable[[Any], list[Any]], column: str, kind: Any, facts: Any) -> Task:
    """Make a task of what describes an image (H, W, 3) by a list."""

    def compute(prepared: list[NDArray[np.uint8]]) -> dict[str, Any]:
        heights, widths = zip(*(rgb.shape[:2] for rgb in prepared), strict=True)
        return {"width": widths, "height": heights, column: [*map(describe, prepared)]}

    schema = pa.schema({**_SIZE, column: pa.list_(pa.struct({**kind, **_MASK}))})
    return Task(_imaged(np.asarray), compute, schema, facts)


def _detect(options: Options) -> Task:
    model, facts = _predictor(options, score_threshold=options["score_threshold"])
    categories = [*facts["categories"].items()]
    kind = dict(_OBJECT)
    if points := getattr(model, "keypoints", None):
        facts["keypoints"] = points.as_json()
        kind["keypoints"] = pa.list_(_NUMBER, 3 * len(points.names))  # x, y, score of each
    if (things := getattr(model, "things", None)) is not None:
        facts["things"] = sorted(things)

    def describe(rgb: Any) -> list[Any]:
        objects: list[Any] = model.in_coco_format(rgb)
        for detection in objects:
            detection["category_id"], detection["category"] = categories[detection["category_id"]]
            detection["segmentation"] = detection.get("segmentation", {}).get("counts")
        return objects

    return _described(describe, "objects", kind, facts)


def _segment(options: Options) -> Task:
    model, facts = _predictor(options)

    def describe(rgb: Any) -> list[Any]:
        classes = model.predict(rgb)
        masks = {index: classes == index for index in np.unique(classes).tolist()}
        return [
            {
                "label": model.labels[index],
                "category": model.names[index],
                "share": mask.mean(),
                "segmentation": encode_mask(mask)["counts"],
            }
            for index, mask in masks.items()
        ]

    return _described(describe, "segments", _SEGMENT, facts)


def merge_objects(folder: Path, output: Path, form: str | None = None) -> int:
    """Merge the results of a detector; return the number of images.

    The output is a file in COCO's format, or with a `form` a folder that receives a dataset.
    """
    manifest, facts, count = read_manifest(folder), load_object(folder / MODEL), 0
    if manifest["options"]["task"] != "detect":
        raise ValueError(f"{folder} holds no objects: merge it into a .parquet file")
    categories = {int(key): name for key, name in facts.get("categories", {}).items()}
    points = read_keypoints([facts.get("keypoints")])
    indexes = {pair: index for index, pair in enumerate(categories.items())}
    plan, write = manifest["plan"], writing_dataset if form else writing_predictions
    arguments: Any = (output, form, categories) if form else (output, categories)
    arguments_of_format: Any = {"things": facts.get("things")} if form else {}
    records = (
        record for number in range(plan["shards"]) for record in read_shard(plan, folder, number)
    )
    with write(*arguments, keypoints=points, **arguments_of_format) as add:
        for row in (row for table in read_parts(folder) for row in table.to_pylist()):
            size, count = (row["height"], row["width"]), count + 1
            for detection in row["objects"]:
                counts = detection.pop("segmentation")
                pair = (detection["category_id"], detection.pop("category"))
                if pair not in indexes:
                    raise ValueError(f"{folder / MODEL} is damaged: it has no category {pair}")
                detection["category_id"] = indexes[pair]
                detection |= {"segmentation": {"size": size, "counts": counts}} if counts else {}
            image = {"name": row["name"], "size": size, "objects": row["objects"]}
            if form:
                contents = (
                    record.content for record in records if printable(record.name) == row["name"]
                )
                source: Any = next(contents, None)
                if source is None:
                    raise ValueError(f"{row['name']} is no longer in the input of {folder}")
                image["source"] = source
                if Path(row["name"]).suffix.lower() not in IMAGE_SUFFIXES:  # a row of Parquet
                    content = io.BytesIO(source) if isinstance(source, bytes) else source
                    with Image.open(content) as opened:
                        image["name"] += f".{opened.format}".lower()
            add(image)
    return count


# ---- classes and captions ------------------------------------------------------------------------
def _classify(options: Options) -> Task:
    load = lazy_import("eva_classification.inference.predictor:Predictor.from_weights")
    settings = {name: options[name] for name in (*_LOADING, "classes")}
    model = load(options["weights"], **settings)
    model.require_rgb("eva batch")

    def compute(prepared: list[Tensor]) -> dict[str, Any]:
        return _ranked(model.judge(prepared), model.class_names, options["top"])

    facts = {"precision": precision_of(model.model)}
    return Task(_imaged(lambda image: model.prepare(np.asarray(image))), compute, _RANKED, facts)


def _zero_shot(options: Options) -> Task:
    clip, prepare = _clip(options)
    find_templates = lazy_import("eva_contrastive.evaluation.prompts:find_templates")
    texts = clip.classes(options["classes"], find_templates(options["templates"]))  # (K, C)

    def compute(prepared: list[Tensor]) -> dict[str, Any]:
        scores = clip.probabilities(clip.images(torch.stack(prepared)), texts)
        return _ranked(scores.cpu().numpy(), options["classes"], options["top"])

    return Task(prepare, compute, _RANKED, {"precision": precision_of(clip.visual)})


def _ranked(scores: NDArray[np.float32], names: Any, top: int) -> dict[str, Any]:
    """Take the largest of scores (B, K), in falling order."""
    require_finite(scores, "probabilities")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    classes = [[names[index] for index in row] for row in order]
    return {"classes": classes, "probabilities": [*np.take_along_axis(scores, order, 1)]}


def _caption_score(options: Options) -> Task:
    clip, prepare_image = _clip(options)

    def prepare(record: Record) -> Any:
        caption = record.text()
        return caption, clip.tokens(caption), prepare_image(record)

    def compute(prepared: list[Any]) -> dict[str, Any]:
        texts, tokens, images = zip(*prepared, strict=True)
        scores = clip.images(torch.stack(images)) * clip.token_features(torch.stack(tokens))
        return {"caption": texts, "score": scores.sum(-1).cpu().numpy()}

    schema = pa.schema({"caption": _TEXT, "score": _NUMBER})
    return Task(prepare, compute, schema, {"precision": precision_of(clip.visual)})

"""What `eva batch` computes of each record, by the predictors of the projects.

Shapes: B records, C channels, h x w patches, K classes.
"""

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eva_data.detection.tiles import encode_mask
from eva_data.files import load_json
from eva_data.records import Record
from eva_report.detection_demo import writing_predictions
from eva_runs.batch import MODEL, Task, read_parts
from eva_runs.precision import DTYPES, precision_of, resolve

Options = dict[str, Any]
_TEXT, _NUMBER = pa.string(), pa.float32()
_SIZE = {"width": pa.int32(), "height": pa.int32()}
_BOX = pa.list_(_NUMBER, 4)  # x, y, width, height in px
_OBJECT = {"bbox": _BOX, "score": _NUMBER, "category_id": pa.int64(), "category": _TEXT}
_SEGMENT = {"label": pa.int32(), "category": _TEXT, "share": _NUMBER}
_MASK = {"segmentation": _TEXT}  # counts of a compressed RLE of the image's size
_RANKED = pa.schema({"classes": pa.list_(_TEXT), "probabilities": pa.list_(_NUMBER)})


def build(options: Options) -> Task:
    """Build the task that the options of a command name."""
    torch.set_grad_enabled(False)
    return {
        "features": _embeddings if options.get("kind") == "embedding" else _vit_features,
        "detect": _detect, "segment": _segment, "classify": _classify, "zero-shot": _zero_shot,
        "caption-score": _caption_score,
    }[options["task"]](options)  # fmt: skip


# ---- features ------------------------------------------------------------------------------------
def _vit_features(options: Options) -> Task:
    from eva_classification.features import FeatureExtractor

    extractor = FeatureExtractor.from_options(Namespace(**options), options["device"])
    pooled = options["kind"] == "pooled"
    side, width = extractor.image_size // extractor.vit.patch_size, extractor.vit.embed_dim
    return _features(
        lambda record: extractor.transform(record.image()),
        extractor if pooled else extractor.patches,
        (width,) if pooled else (width, side, side),
        options["store"],
        _facts(extractor, extractor, pooling=extractor.pooling),
    )


def _embeddings(options: Options) -> Task:
    texts, clip = options["texts"], _clip(options, texts=options["texts"])
    encode = clip.token_features if texts else clip.images
    return _features(
        lambda record: clip.tokens(record.name) if texts else clip.transform(record.image()),
        lambda batch: encode(batch, normalize=options["unit_length"]),
        (clip.embed_dim,),
        options["store"],
        _facts(clip, clip.visual),
    )


def _features(
    prepare: Callable[[Record], Tensor],
    encode: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    store: str,
    facts: dict[str, Any],
) -> Task:
    """Make a task of what gives features of a batch, whose `shape` the schema notes."""
    width = int(np.prod(shape))
    kind = pa.list_(pa.float16() if store == "fp16" else _NUMBER, width)

    def compute(prepared: list[Tensor]) -> dict[str, Any]:
        features = encode(torch.stack(prepared)).to(DTYPES[store])
        if not features.isfinite().all():
            text = f"features are not finite in {store}: use --precision fp32 and --store fp32"
            raise FloatingPointError(text)
        values = pa.array(features.cpu().numpy().reshape(-1))
        return {"features": pa.FixedSizeListArray.from_arrays(values, width)}

    schema = pa.schema({"features": kind}).with_metadata({"shape": str([*shape])})
    return Task(prepare, compute, schema, facts)


def _clip(options: Options, *, texts: bool = True) -> Any:
    from eva_contrastive.inference.features import ClipFeatures

    names = ("image_size", "mean", "std", "batch_size", "device", "precision")
    given = {name: options[name] for name in names}
    return ClipFeatures.from_weights(options["weights"], texts=texts, **given)


def _facts(preparation: Any, model: Any, **more: Any) -> dict[str, Any]:
    facts = {name: getattr(preparation, name) for name in ("image_size", "mean", "std")}
    return {**facts, "precision": precision_of(model), **more}


# ---- objects and pixels --------------------------------------------------------------------------
def _located(options: Options, **more: Any) -> Any:
    """Build the predictor of a detector or segmentor."""
    module = import_module(f"eva_{options['framework']}.inference.predictor")
    names = ("weights", "precision", "slice", "overlap")
    more |= {name: options[name] for name in names}
    device = None if options["device"] == "auto" else options["device"]
    return module.Predictor.from_config(options["config"], device=device, **more)


def _found(model: Any, options: Options, categories: Any) -> dict[str, Any]:
    precision = resolve(options["precision"], next(model.model.parameters()).device)
    return {"precision": precision, "categories": categories}


def _of_arrays(describe: Callable[[Any], list[Any]], column: str, kind: Any, facts: Any) -> Task:
    """Make a task of what describes an image (H, W, 3) by a list."""

    def compute(prepared: list[NDArray[np.uint8]]) -> dict[str, Any]:
        heights, widths = zip(*(rgb.shape[:2] for rgb in prepared), strict=True)
        return {"width": widths, "height": heights, column: [*map(describe, prepared)]}

    schema = pa.schema({**_SIZE, column: pa.list_(pa.struct({**kind, **_MASK}))})
    return Task(lambda record: np.asarray(record.image()), compute, schema, facts)


def _detect(options: Options) -> Task:
    model = _located(options, score_threshold=options["score_threshold"])
    categories = dict(model.categories)
    ids = [*categories]

    def describe(rgb: Any) -> list[Any]:
        objects: list[Any] = model.in_coco_format(rgb).objects
        for one in objects:
            one["category_id"] = ids[one["category_id"]]
            one["category"] = categories[one["category_id"]]
            one["segmentation"] = one.get("segmentation", {}).get("counts")
        return objects

    return _of_arrays(describe, "objects", _OBJECT, _found(model, options, categories))


def _segment(options: Options) -> Task:
    model = _located(options)

    def describe(rgb: Any) -> list[Any]:
        classes = model.predict(rgb)
        masks = {index: classes == index for index in np.unique(classes).tolist()}
        return [
            {"label": model.labels[index], "category": model.names[index],
             "share": mask.mean(), "segmentation": encode_mask(mask)["counts"]}
            for index, mask in masks.items()
        ]  # fmt: skip

    return _of_arrays(describe, "segments", _SEGMENT, _found(model, options, model.names))


def merge_objects(folder: Path, file: Path) -> int:
    """Merge the results of a detector into one file in COCO's format; return its images."""
    facts, count = load_json(folder / MODEL), 0
    if not isinstance(known := facts.get("categories"), dict):
        raise ValueError(f"{folder} holds no objects: merge it into a .parquet file")
    categories = {int(key): name for key, name in known.items()}
    places = {key: index for index, key in enumerate(categories)}
    with writing_predictions(file, categories) as add:
        for row in (row for table in read_parts(folder) for row in table.to_pylist()):
            size, count = (row["height"], row["width"]), count + 1
            for one in row["objects"]:
                one["category_id"] = places[one["category_id"]]
                counts, _ = one.pop("segmentation"), one.pop("category")
                one |= {"segmentation": {"size": size, "counts": counts}} if counts else {}
            add(row["objects"], size=size, file_name=row["name"])
    return count


# ---- classes and captions ------------------------------------------------------------------------
def _classify(options: Options) -> Task:
    from eva_classification.inference.predictor import Predictor

    names = ("classes", "image_size", "mean", "std", "batch_size", "device", "precision")
    given = {name: options[name] for name in names}
    model = Predictor.from_weights(options["weights"], **given)
    facts = {"precision": precision_of(model.model), **model.facts}
    return Task(
        lambda record: model.prepare(np.asarray(record.image())),
        lambda prepared: _ranked(model.judge(prepared), model.class_names, options["top"]),
        _RANKED,
        facts,
    )


def _ranked(scores: NDArray[np.float32], names: Any, top: int) -> dict[str, Any]:
    """Take the largest of scores (B, K), in falling order."""
    if not np.isfinite(scores).all():
        raise FloatingPointError("probabilities are not finite: use --precision fp32")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    classes = [[names[index] for index in row] for row in order]
    return {"classes": classes, "probabilities": [*np.take_along_axis(scores, order, 1)]}


def _zero_shot(options: Options) -> Task:
    from eva_contrastive.evaluation.prompts import find_templates, sentences

    clip, templates = _clip(options), find_templates(options["templates"])
    means = [clip.texts(sentences(name, templates)).mean(0) for name in options["classes"]]
    texts = F.normalize(torch.stack(means), dim=-1)  # (K, C)

    def compute(prepared: list[Tensor]) -> dict[str, Any]:
        scores = clip.probabilities(clip.images(torch.stack(prepared)), texts)
        return _ranked(scores.cpu().numpy(), options["classes"], options["top"])

    facts = _facts(clip, clip.visual)
    return Task(lambda record: clip.transform(record.image()), compute, _RANKED, facts)


def _caption_score(options: Options) -> Task:
    clip = _clip(options)

    def prepare(record: Record) -> Any:
        text = record.text()
        return text, clip.tokens(text), clip.transform(record.image())

    def compute(prepared: list[Any]) -> dict[str, Any]:
        texts, tokens, images = zip(*prepared, strict=True)
        scores = clip.images(torch.stack(images)) * clip.token_features(torch.stack(tokens))
        return {"caption": texts, "score": scores.sum(-1).cpu().numpy()}

    schema = pa.schema({"caption": _TEXT, "score": _NUMBER})
    return Task(prepare, compute, schema, _facts(clip, clip.visual))

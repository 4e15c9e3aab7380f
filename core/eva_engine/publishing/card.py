"""The model card of a published run."""

import json
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from eva_backbone.checkpoints.registry import OFFICIAL_FILES
from eva_engine.publishing.data_names import data_name
from eva_engine.publishing.privacy import clean
from eva_engine.publishing.runs import Run
from eva_runs.extras import DETECTRON2
from eva_runs.extras import TOOLKIT as LIBRARY

_PIPELINES = {
    "pretrain": "image-feature-extraction",
    "classification": "image-classification",
    "clip": "zero-shot-image-classification",
    "detection": "object-detection",
    "mmdetection": "object-detection",
    "segmentation": "image-segmentation",
    "video": "video-classification",
}
_WHAT = {
    "pretrain": "a ViT pre-trained by masked image modelling",
    "classification": "an image classifier",
    "clip": "a CLIP: an image tower and a text tower",
    "detection": "an object detector (Cascade Mask R-CNN, detectron2)",
    "mmdetection": "an object detector (mmdetection)",
    "segmentation": "a segmentor (mmsegmentation)",
    "video": "a classifier of videos",
}
_LOAD = {
    "pretrain": 'from eva_backbone import load_vit\n\nmodel = load_vit("{address}")',
    "classification": "from eva_classification.inference.predictor import Predictor\n\n"
    'predictor = Predictor.from_weights("{address}")',
    "clip": "from eva_contrastive.model.loading import load_eva_clip\n\n"
    'model = load_eva_clip("{address}")',
    "video": "from eva_video.inference.predictor import VideoPredictor\n\n"
    'predictor = VideoPredictor.from_weights("{address}")',
    "detection": "from eva_detection.inference.predictor import Predictor\n\n"
    '# {recipe}: hf download {repository} {recipe} --local-dir .\n'
    'predictor = Predictor.from_config("{recipe}", weights="{address}")',
    "segmentation": "from eva_segmentation.inference.predictor import Predictor\n\n"
    '# {recipe}: hf download {repository} {recipe} --local-dir .\n'
    'predictor = Predictor.from_config("{recipe}", weights="{address}")',
    "mmdetection": "from eva_mmdetection.inference.predictor import Predictor\n\n"
    '# {recipe}: hf download {repository} {recipe} --local-dir .\n'
    'predictor = Predictor.from_config("{recipe}", weights="{address}")',
}  # fmt: skip
_OTHERS = {
    "pretrain": ("timm", 'timm.create_model("local-dir:converted", pretrained=True)'),
    "classification": ("timm", 'timm.create_model("local-dir:converted", pretrained=True)'),
    "clip": ("open-clip", 'open_clip.create_model_and_transforms("local-dir:converted")'),
}
_TRAIN = {
    "detection": "eva detection train --config-file {recipe}",
    "segmentation": "eva segmentation train {recipe}",
    "mmdetection": "eva mmdetection train {recipe}",
}
_OWN_DATA = (
    " \\\n    --train-annotations FILE --train-images DIR --val-annotations FILE --val-images DIR"
)
_METRICS = {
    "top1": "accuracy",
    "top5": "top-5 accuracy",
    "mIoU": "mean_iou",
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "coco/bbox_mAP": "box AP",
    "coco/segm_mAP": "mask AP",
    "lvis/bbox_AP": "box AP",
    "lvis/segm_AP": "mask AP",
}
_OF_TASK = {
    "detection": ("torch", "detectron2", "sal-detectron2"),
    "segmentation": ("torch", "onedl-mmengine", "onedl-mmsegmentation"),
    "mmdetection": ("torch", "onedl-mmengine", "onedl-mmdetection"),
}


def model_card(run: Run, repository: str, *, licence: str = "mit", parameters: int) -> str:
    """Write the model card of a run.

    Args:
        run: The run.
        repository: `ORG/NAME` that it is published under.
        licence: Identifier of the licence of the weights.
        parameters: Number of parameters.

    Returns:
        The content of `README.md`.
    """
    data = {use: name for use, place in run.data.items() if (name := data_name(place))}
    sections = [
        _header(run, repository, licence, data),
        f"# {repository.partition('/')[2]}\n\n"
        f"An [EVA](https://arxiv.org/abs/2211.07636) vision transformer as {_WHAT[run.task]}: "
        f"{parameters / 1e6:,.1f} M parameters, trained with {LIBRARY}.",
        _loading(run, repository),
        _scores(run, data),
        _training(run, data),
        f"## Licence\n\nThe weights: {licence}. What they began with, and the data, have licences "
        "of their own.",
    ]
    return "\n\n".join(sections) + "\n"


def _header(run: Run, repository: str, licence: str, data: Mapping[str, str]) -> str:
    """YAML; JSON is YAML too, so each value is written as JSON."""
    official = [one for one in OFFICIAL_FILES if Path(run.begun_from).name in (one.name, one.stem)]
    names = [slug for place in dict.fromkeys(data.values()) if (slug := _slug(place))]
    fields: dict[str, object] = {
        "license": licence,
        "library_name": LIBRARY,
        "pipeline_tag": _PIPELINES[run.task],
        "tags": ["eva", "vision-transformer", run.task],
    }
    if official:
        fields["base_model"] = official[0].source
    if names:
        fields["datasets"] = names
    known = {name: run.scores[name] for name in _METRICS if name in run.scores}
    if known:
        fields["metrics"] = [_METRICS[name] for name in known]
        dataset = data.get("val") or "validation data"
        fields["model-index"] = [
            {
                "name": repository.partition("/")[2],
                "results": [
                    {
                        "task": {"type": _PIPELINES[run.task]},
                        "dataset": {"name": dataset, "type": _slug(dataset) or "own"},
                        "metrics": [
                            {"type": _METRICS[name], "value": round(value, 4), "name": name}
                            for name, value in known.items()
                        ],
                    }
                ],
            }
        ]
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _slug(name: str) -> str:
    """Name of a data set as the hub takes it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")


def _loading(run: Run, repository: str) -> str:
    values = {
        "address": f"hf://{repository}",
        "repository": repository,
        "recipe": run.recipe_name,
    }
    install = f"pip install '{LIBRARY}[hub,{run.task}]'"
    if run.task == "detection":
        install += f"\n{DETECTRON2}"
    text = (
        f"## Load it\n\n```bash\n{install}\n```\n\n```python\n"
        f"{_LOAD[run.task].format(**values)}\n```\n\n"
        f"`hf://{repository}@COMMIT` pins a commit. Wherever the toolkit takes weights, it takes "
        "this address."
    )
    if run.task in _OTHERS:
        form, call = _OTHERS[run.task]
        package = call.partition(".")[0]
        text += (
            f"\n\nIn {package}:\n\n```bash\neva convert hf://{repository} --to {form} --output "
            f"converted\n```\n\n```python\nimport {package}\n\nmodel = {call}\n```"
        )
    return text


def _scores(run: Run, data: Mapping[str, str]) -> str:
    if not run.scores:
        return "## Scores\n\nThe run has no evaluation of these weights."
    rows = [f"| {name} | {value:.4g} |" for name, value in run.scores.items()]
    on = f" on `{data['val']}`" if "val" in data else ""
    head = f"Of these weights{on}, by the run's own evaluation:"
    return "\n".join(["## Scores", "", head, "", "| metric | value |", "|---|---:|", *rows])


def _training(run: Run, data: Mapping[str, str]) -> str:
    of = f" of {run.steps:,}" if run.steps else ""
    facts = [f"- trainer: {run.trainer}; {run.step:,}{of} {run.unit}s"]
    if run.processes:
        facts.append(f"- processes: {run.processes}")
    if run.hours is not None:
        facts.append(f"- time of the steps, by the log: {run.hours:.2f} h")
    if run.begun_from:
        facts.append(f"- began with: `{clean(run.begun_from)}`")
    facts += [f"- data ({use}): {_named(data.get(use))}" for use in run.data]
    facts += [f"- {fact}" for fact in run.facts]
    facts.append(f"- settings: `{run.recipe_name}`; scores: `results.json`")
    versions = [
        f"{name} {version}" for name in (LIBRARY, *_packages(run)) if (version := _version(name))
    ]
    facts.append(f"- versions when it was published: {', '.join(versions)}")
    text = "## Training\n\n" + "\n".join(facts)
    if run.task not in _TRAIN:
        text += (
            f"\n\nThe same again: `eva {run.task} train RECIPE --name.of.value VALUE ...` with the "
            f"values of `{run.recipe_name}`."
        )
    else:
        command = _TRAIN[run.task].format(recipe=run.recipe_name)
        command += _OWN_DATA if run.own_data else ""
        text += f"\n\nThe same again, with your own places of data:\n\n```bash\n{command}\n```"
    return text  # fmt: skip


def _named(name: str | None) -> str:
    return f"`{name}`" if name else "not named here, as its settings have only a place"


def _packages(run: Run) -> tuple[str, ...]:
    return _OF_TASK.get(run.task, ("torch", "timm", "deepspeed"))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""

"""What `eva` can do: words -> the function that does it, which is imported when it is called.

Each function takes the arguments after its words and returns an exit code or None, as the program
of the checkout does that calls it too.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """A command of the table.

    Attributes:
        function: `module:function`.
        text: Line of help.
        arguments: Arguments in front of those that are given.
    """

    function: str
    text: str
    arguments: tuple[str, ...] = ()


class Group(NamedTuple):
    """Commands with a first word in common.

    Attributes:
        text: Line of help.
        commands: Second word -> command.
        aliases: Other second words, each for one of `commands`.
    """

    text: str
    commands: Mapping[str, Command]
    aliases: Mapping[str, str] = {}


_SUBMIT = Command("eva_detection.evaluation.submission:main", "files for COCO's and LVIS's servers")
_DETECTION = "eva_detection.command_line"
_ALIASES = {"test": "evaluate", "predict": "demo"}

GROUPS: Mapping[str, Group] = {
    "detection": Group(
        "objects and their masks, with detectron2",
        {
            "train": Command(f"{_DETECTION}:train", "train a detector"),
            "evaluate": Command(f"{_DETECTION}:train", "score a detector", ("--eval-only",)),
            "demo": Command(f"{_DETECTION}:demo", "detect in images, videos"),
            "export": Command(f"{_DETECTION}:export", "for other programs"),
            "submit": _SUBMIT,
            "coco-lvis-gap": Command(
                "eva_detection.evaluation.coco_lvis_gap:main", "the gap of the paper's Table 8b"
            ),
            "quickstart": Command(
                "eva_command.quickstart:main", "train and report, on a CPU", ("detection",)
            ),
        },
        _ALIASES,
    ),
    "mmdetection": Group(
        "the same detectors, with mmdetection",
        {
            "train": Command("eva_mmdetection.commands:train", "train a detector"),
            "evaluate": Command("eva_mmdetection.commands:evaluate", "score a detector"),
            "demo": Command("eva_mmdetection.commands:demo", "detect in images"),
        },
        _ALIASES,
    ),
    "segmentation": Group(
        "a class for each pixel, with mmsegmentation",
        {
            "train": Command("eva_segmentation.commands:train", "train a segmentor"),
            "evaluate": Command("eva_segmentation.commands:evaluate", "score one"),
            "demo": Command("eva_segmentation.inference.demo:main", "segment images"),
            "export": Command("eva_segmentation.commands:export", "for other programs"),
        },
        _ALIASES,
    ),
    "classification": Group(
        "a class for each image",
        {
            "train": Command("eva_classification.commands:train", "fine-tune or probe"),
            "evaluate": Command(
                "eva_classification.commands:evaluate", "own data, ImageNet and variants"
            ),
            "evaluate-frozen": Command(
                "eva_classification.commands:evaluate_frozen", "neighbours, linear classifiers"
            ),
            "demo": Command("eva_classification.commands:demo", "name what images show"),
            "export": Command("eva_classification.commands:export", "for other programs"),
        },
        _ALIASES,
    ),
    "pretrain": Group(
        "masked image modelling towards CLIP's features",
        {
            "train": Command("eva_pretrain.train_command:main", "pre-train a ViT"),
            "train-tokenizer": Command("eva_pretrain.train_command:tokenizer", "its tokenizer"),
        },
    ),
    "video": Group(
        "a class for each video",
        {
            "train": Command("eva_video.commands:train", "fine-tune a classifier"),
            "evaluate": Command("eva_video.commands:evaluate", "score a classifier"),
            "evaluate-frozen": Command(
                "eva_video.commands:evaluate_frozen", "check weights without training"
            ),
            "demo": Command("eva_video.commands:demo", "name what happens in videos"),
            "export": Command("eva_video.commands:export", "for other programs"),
        },
        _ALIASES,
    ),
    "clip": Group(
        "images and texts in one space",
        {
            "train": Command("eva_contrastive.commands:train", "train a CLIP"),
            "evaluate": Command("eva_contrastive.commands:evaluate", "zero-shot scores"),
            "demo": Command("eva_contrastive.commands:demo", "rank captions, search"),
            "export": Command("eva_contrastive.commands:export", "both towers as files"),
            "interpolate": Command(
                "eva_contrastive.commands:interpolate", "between two sets of weights"
            ),
        },
        {**_ALIASES, "evaluate-zero-shot": "evaluate"},
    ),
    "data": Group(
        "datasets: check, convert, make",
        {
            "verify": Command("eva_command.verify:main", "check data, write a clean copy"),
            "make-demo": Command("eva_demo.command:main", "handwritten digits on photographs"),
            "prepare-segmentation": Command(
                "eva_segmentation.data.coco_stuff:main", "label maps of COCO-Stuff"
            ),
            "make-kinetics722": Command("eva_video.kinetics722:main", "merge Kinetics"),
        },
    ),
    "batch": Group(
        "any number of images, on many processes or machines",
        {
            word: Command("eva_command.batch:main", description, (word,))
            for word, description in {
                "features": "vectors or maps of any weights, embeddings of EVA-CLIP",
                "detect": "objects and their masks",
                "segment": "a mask for each class",
                "classify": "the first classes",
                "zero-shot": "the first of classes by their names",
                "caption-score": "how well captions fit",
                "status": "what is done, failed, could not be read",
                "retry": "shards that failed or have errors again",
                "merge": "one file of all results",
            }.items()
        },
    ),
    "weights": Group(
        "official weights, by name",
        {
            "list": Command("eva_command.weights:list_command", "the files, and what is here"),
            "get": Command("eva_command.weights:get_command", "make sure that files are here"),
            "verify": Command("eva_command.weights:verify_command", "check their SHA-256"),
        },
    ),
}

COMMANDS: Mapping[str, Command] = {
    "quickstart": Command("eva_command.quickstart:main", "a task on demo data, on a CPU"),
    "train": Command("eva_command.training:main", "own data of any form, on any machine"),
    "distill": Command(
        "eva_pretrain.train_command:distill", "a small ViT from a large one, on own images"
    ),
    "recipes": Command("eva_command.recipes:recipes", "recipes of all tasks, or one"),
    "config": Command("eva_command.recipes:config", "show a recipe, or copy it"),
    "plan": Command("eva_command.planning:main", "memory of a training step, before it is spent"),
    "convert": Command("eva_command.convert:main", "weights for other programs, and back"),
    "export": Command("eva_command.training:export", "models for other programs, such as ONNX"),
    "index": Command("eva_command.index:main", "of features, to search among millions"),
    "app": Command("eva_app.command:main", "results of models and runs, in the browser"),
    "label": Command("eva_command.label:main", "images by a model, and which to label next"),
    "submit": _SUBMIT,
    "push": Command("eva_command.push:main", "publish a run on the hub"),
    "doctor": Command("eva_command.doctor:main", "what is installed, missing, broken"),
}

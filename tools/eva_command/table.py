"""What `eva` can do: words -> the function that does it, which is imported when it is called.

Each function takes the arguments after its words and returns an exit code or None, as the program
of the checkout does that calls it too.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """An entry of the table, a command.

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
    commands: Mapping[str, Entry]
    aliases: Mapping[str, str] = {}


_SUBMIT = Entry("eva_detection.evaluation.submission:main", "files for COCO's and LVIS's servers")
_DETECTION = "eva_detection.command_line"
_ALIASES = {"test": "evaluate", "predict": "demo"}

GROUPS: Mapping[str, Group] = {
    "detection": Group(
        "objects and their masks, with detectron2",
        {
            "train": Entry(f"{_DETECTION}:train", "train a detector"),
            "evaluate": Entry(f"{_DETECTION}:train", "score a detector", ("--eval-only",)),
            "demo": Entry(f"{_DETECTION}:demo", "detect in images, videos"),
            "export": Entry(f"{_DETECTION}:export", "for other programs"),
            "submit": _SUBMIT,
            "coco-lvis-gap": Entry(
                "eva_detection.evaluation.coco_lvis_gap:main", "the gap of the paper's Table 8b"
            ),
            "quickstart": Entry(
                "eva_command.quickstart:main", "train and report, on a CPU", ("detection",)
            ),
        },
        _ALIASES,
    ),
    "mmdetection": Group(
        "the same detectors, with mmdetection",
        {
            "train": Entry("eva_mmdetection.commands:train", "train a detector"),
            "evaluate": Entry("eva_mmdetection.commands:evaluate", "score a detector"),
            "demo": Entry("eva_mmdetection.commands:demo", "detect in images"),
        },
        _ALIASES,
    ),
    "segmentation": Group(
        "a class for each pixel, with mmsegmentation",
        {
            "train": Entry("eva_segmentation.commands:train", "train a segmentor"),
            "evaluate": Entry("eva_segmentation.commands:evaluate", "score one"),
            "demo": Entry("eva_segmentation.inference.demo:main", "segment images"),
            "export": Entry("eva_segmentation.commands:export", "for other programs"),
        },
        _ALIASES,
    ),
    "classification": Group(
        "a class for each image",
        {
            "train": Entry("eva_classification.commands:train", "fine-tune or probe"),
            "evaluate": Entry(
                "eva_classification.commands:evaluate", "own data, ImageNet and variants"
            ),
            "evaluate-frozen": Entry(
                "eva_classification.commands:evaluate_frozen", "neighbours, linear classifiers"
            ),
            "demo": Entry("eva_classification.commands:demo", "name what images show"),
            "export": Entry("eva_classification.commands:export", "for other programs"),
        },
        _ALIASES,
    ),
    "pretrain": Group(
        "masked image modelling towards CLIP's features",
        {
            "train": Entry("eva_pretrain.commands:train", "pre-train a ViT"),
            "train-tokenizer": Entry("eva_pretrain.commands:train_tokenizer", "its tokenizer"),
        },
    ),
    "video": Group(
        "a class for each video",
        {
            "train": Entry("eva_video.commands:train", "fine-tune a classifier"),
            "evaluate": Entry("eva_video.commands:evaluate", "score a classifier"),
            "evaluate-frozen": Entry(
                "eva_video.commands:evaluate_frozen", "check weights without training"
            ),
            "demo": Entry("eva_video.commands:demo", "name what happens in videos"),
            "export": Entry("eva_video.commands:export", "for other programs"),
        },
        _ALIASES,
    ),
    "clip": Group(
        "images and texts in one space",
        {
            "train": Entry("eva_contrastive.commands:train", "train a CLIP"),
            "evaluate": Entry("eva_contrastive.commands:evaluate", "zero-shot scores"),
            "demo": Entry("eva_contrastive.commands:demo", "rank captions, search"),
            "export": Entry("eva_contrastive.commands:export", "both towers as files"),
            "interpolate": Entry(
                "eva_contrastive.commands:interpolate", "between two sets of weights"
            ),
        },
        {**_ALIASES, "evaluate-zero-shot": "evaluate"},
    ),
    "data": Group(
        "datasets: check, convert, make",
        {
            "verify": Entry("eva_command.verify:main", "check data, write a clean copy"),
            "make-demo": Entry("eva_demo.command:main", "handwritten digits on photographs"),
            "prepare-segmentation": Entry(
                "eva_segmentation.data.coco_stuff:main", "label maps of COCO-Stuff"
            ),
            "make-kinetics722": Entry("eva_video.kinetics722:main", "merge Kinetics"),
        },
    ),
    "batch": Group(
        "any number of images, on many processes or machines",
        {
            word: Entry("eva_command.batch:main", description, (word,))
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
            "list": Entry("eva_command.weights:list_command", "the files, and what is here"),
            "get": Entry("eva_command.weights:get_command", "make sure that files are here"),
            "verify": Entry("eva_command.weights:verify_command", "check their SHA-256"),
        },
    ),
}

COMMANDS: Mapping[str, Entry] = {
    "quickstart": Entry("eva_command.quickstart:main", "a task on demo data, on a CPU"),
    "train": Entry("eva_command.training:main", "own data of any form, on any machine"),
    "distill": Entry(
        "eva_pretrain.commands:distill", "a small ViT from a large one, on own images"
    ),
    "recipes": Entry("eva_command.recipes:recipes", "recipes of all tasks, or one"),
    "config": Entry("eva_command.recipes:config", "show a recipe, or copy it"),
    "plan": Entry("eva_command.planning:main", "memory of a training step, before it is spent"),
    "convert": Entry("eva_command.convert:main", "weights for other programs, and back"),
    "export": Entry("eva_command.training:export", "models for other programs, such as ONNX"),
    "index": Entry("eva_command.index:main", "of features, to search among millions"),
    "app": Entry("eva_app.command:main", "results of models and runs, in the browser"),
    "label": Entry("eva_command.label:main", "images by a model, and which to label next"),
    "submit": _SUBMIT,
    "push": Entry("eva_command.push:main", "publish a run on the hub"),
    "doctor": Entry("eva_command.doctor:main", "what is installed, missing, broken"),
}

"""Everything that takes weights takes an address of the hub, and every command `--no-download`.

An address that nobody has, while downloads are off, must reach `resolve_source`: its sentence names
the address. A new function or command that takes weights needs a line here.
"""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from eva_command.table import COMMANDS

ROOT = Path(__file__).parents[2]
ADDRESS = "hf://somebody/nothing"
SEGMENTOR = ROOT / "segmentation/configs/demo/upernet_eva_debug.py"
MMDETECTOR = ROOT / "mmdetection/configs/demo/cascade_mask_rcnn_eva_debug.py"
DETECTOR = ROOT / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"

# module, attribute, arguments before the weights, keyword of the weights ("" for a position), more
FUNCTIONS = [
    ("eva_backbone", "load_vit", (), "", {}),
    ("eva_backbone", "load_pretrained", (nn.Linear(1, 1),), "", {}),
    ("eva_backbone.checkpoints.from_weights", "load_pooled", (), "", {"pooling": None}),
    ("eva_command.conversion", "find_source", (), "", {"ema": False}),
    ("eva_engine.evaluation.own_data", "notes_of_training", (), "", {}),
    ("eva_classification.models", "load_classifier", (), "", {}),
    ("eva_classification.features", "FeatureExtractor.from_weights", (), "", {}),
    ("eva_classification.inference.predictor", "Predictor.from_weights", (), "", {}),
    ("eva_video.model.classifier", "initialise", (nn.Linear(1, 1),), "", {}),
    ("eva_video.model.classifier", "load_video_classifier", (), "", {}),
    ("eva_video.model.features", "ClipFeatureExtractor.from_weights", (), "", {}),
    ("eva_video.inference.predictor", "VideoPredictor.from_weights", (), "", {}),
    ("eva_contrastive.model.loading", "load_eva_clip", (), "", {}),
    ("eva_contrastive.model.loading", "weights_file", (), "", {}),
    ("eva_contrastive.model.loading", "initialise", (nn.Linear(1, 1),), "", {"text": ""}),
    ("eva_contrastive.model.loading", "initialise_text", (nn.Linear(1, 1),), "", {}),
    ("eva_contrastive.inference.features", "ClipFeatures.from_weights", (), "", {}),
    ("eva_pretrain.teachers", "BackboneTeacher", ("eva_debug",), "weights",
     {"image_size": 32}),
    ("eva_pretrain.teachers", "ClipTeacher.from_open_clip", ("ViT-B-32",), "", {}),
    ("eva_detection.building", "load_initial_weights", (nn.Linear(1, 1),), "", {}),
    ("eva_detection.inference.predictor", "Predictor.from_config", (DETECTOR,), "weights", {}),
    ("eva_detection.inference.export", "load_backbone", (DETECTOR,), "", {}),
    ("eva_segmentation.model.segmentor", "load_segmentor", (nn.Linear(1, 1),), "", {}),
    ("eva_segmentation.inference.predictor", "Predictor.from_config", (SEGMENTOR,), "weights", {}),
    ("eva_mmdetection.plugin", "load_detector", (nn.Linear(1, 1),), "", {}),
    ("eva_mmdetection.plugin", "load_from_local_or_detectron2", (), "", {}),
    ("eva_mmdetection.inference.predictor", "Predictor.from_config", (MMDETECTOR,), "weights", {}),
    ("eva_openmmlab.weights", "load_from_local_safely", (), "", {}),
]  # fmt: skip

# commands of `eva` that take no weights, or hand them on; all others must have --no-download
WITHOUT_WEIGHTS = {
    *(
        "compare",
        "config",
        "distill",
        "doctor",
        "export",
        "index",
        "plan",
        "push",
        "recipes",
        "submit",
    ),
    *("weights list", "weights verify", "batch status", "batch retry", "batch merge"),
    *("detection coco-lvis-gap", "detection quickstart", "detection submit", "quickstart", "train"),
    *(name for name in COMMANDS if name.startswith("data ")),
}
TAKING_WEIGHTS = [name for name in COMMANDS if name not in WITHOUT_WEIGHTS]
SUBCOMMANDS = {"clip demo": "rank"}  # both of them add the same options


def _attribute(module, path):
    if module.startswith("eva_mmdetection"):
        importlib.import_module("eva_mmdetection.plugin")  # as its configs do
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(
    ("module", "name", "before", "keyword", "more"),
    FUNCTIONS,
    ids=[f"{module}.{name}" for module, name, *_ in FUNCTIONS],
)
def test_an_address_reaches_the_one_place_that_resolves(module, name, before, keyword, more):
    function = _attribute(module, name)
    arguments = (*before, *(() if keyword else (ADDRESS,)))
    with pytest.raises(FileNotFoundError, match=ADDRESS):
        function(*arguments, **more | ({keyword: ADDRESS} if keyword else {}))


def test_no_download_holds_for_teachers_that_open_clip_would_download(hub, monkeypatch):
    from eva_pretrain.teachers import ClipTeacher

    monkeypatch.setenv("EVA_NO_DOWNLOAD", "1")
    with pytest.raises(FileNotFoundError, match=r"ViT-B-32.*EVA_NO_DOWNLOAD"):
        ClipTeacher.from_open_clip("ViT-B-32", "openai")
    assert hub.requests == []


def test_configs_of_mmengine_take_an_address():
    from eva_openmmlab.backbone import EVAViT

    sizes = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_dim": 48}
    backbone = EVAViT(pretrained=ADDRESS, **sizes)
    with pytest.raises(FileNotFoundError, match=ADDRESS):
        backbone.init_weights()


def test_weights_of_another_form_reach_mmengine(hub):
    """`init_model` and mmengine's own tools read `.safetensors` of the hub by its address."""
    from mmengine.runner import CheckpointLoader
    from safetensors.torch import save

    importlib.import_module("eva_openmmlab.weights")
    hub.put("somebody/nothing", "model.safetensors", save({"a": torch.ones(2)}))
    content = CheckpointLoader.load_checkpoint(ADDRESS, logger="silent")
    weights = content.get("state_dict", content)  # mmdetection's own reader returns them bare
    assert weights["a"].tolist() == [1, 1]


def test_the_commands_are_those_of_the_table():
    assert COMMANDS.keys() >= WITHOUT_WEIGHTS
    assert len(TAKING_WEIGHTS) >= 20


@pytest.mark.parametrize("name", TAKING_WEIGHTS)
def test_a_command_that_takes_weights_has_no_download(name, capsys):
    function, *arguments = COMMANDS[name][0].split()
    module, _, attribute = function.partition(":")
    main = getattr(importlib.import_module(module), attribute)
    words = [SUBCOMMANDS[name]] if name in SUBCOMMANDS else []
    with pytest.raises(SystemExit) as caught:
        main([*arguments, *words, "--help"])
    assert not caught.value.code
    assert "--no-download" in capsys.readouterr().out

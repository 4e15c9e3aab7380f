"""Small weights of natural images that a training on own data begins from, by the machine.

They are EVA-02's (MIT), and for frozen features DINOv2's (Apache-2.0), as timm hosts them. Fetched
once; without a network the bundled `eva_debug` is taken, which has seen digits alone. A backbone,
weights or a recipe of one's own are taken in their place: `--backbone eva_debug` fetches nothing.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from eva_backbone.checkpoints.hub import HubError, HubFile, find_cached, look_up
from eva_backbone.checkpoints.registry import HOSTED_FILES, resolve_source, weights_directories
from eva_backbone.checkpoints.verification import verify_once
from eva_data.files import IMAGE_SUFFIXES, find_files
from eva_runs.commands import echo
from eva_runs.recipes import list_recipes

Words = list[str]
BUNDLED = "eva_debug"
_GIB = 2**30
_OWN = re.compile(  # by which a user names weights, or wants none from the hub
    r"(--)?(backbone|weights|no-download|load[-_]from|(model|train)\.(init[-_]checkpoint|variant))"
)
_LARGE = 22 * _GIB  # bytes of a card of 24 GB
# least memory of a card -> small weights
_BY_MEMORY = ((14 * _GIB, "eva02_l14"), (7 * _GIB, "eva02_s14"), (0, "eva02_ti14"))
# task -> small weights -> recipe and settings; eva02_ti14 takes the smallest recipe
_ON_CARDS: Mapping[str, Mapping[str, Words]] = {
    "detection": {
        "eva02_s14": ["custom/cascade_mask_rcnn_vitdet_dinov3_b_12gb"],
        "eva02_l14": ["custom/cascade_mask_rcnn_vitdet_eva02_l_lora_12gb"],
    },
    "mmdetection": {
        "eva02_s14": ["custom/cascade_mask_rcnn_eva_l_24gb"],
        "eva02_l14": ["custom/cascade_mask_rcnn_eva_l_24gb", "--lora", "8"],
    },
    "segmentation": {
        "eva02_s14": ["ade20k/upernet_dinov3_b_512_12gb"],
        "eva02_l14": ["ade20k/upernet_eva02_l_512_lora_12gb"],
    },
    "classification": {
        "eva02_s14": ["custom/eva_small", "--image-size", "224"],
        "eva02_l14": ["custom/eva_small", "--image-size", "224", "--lora", "8"],
    },
}
_SAMPLES = 50_000  # of 112 px that `eva02_ti14` is trained on in 15 minutes on two cores
_QUICK = "dinov2_s14"  # whose features are made to be used as they are
# task -> recipe for such a card, and the official weights that it starts from
_RECIPES: Mapping[str, tuple[str, str]] = {
    "detection": ("custom/cascade_mask_rcnn_vitdet_eva_l_24gb", "eva_l_psz14.pt"),
    "mmdetection": ("custom/cascade_mask_rcnn_eva_l_24gb", "eva_l_psz14.pt"),
    "segmentation": (
        "ade20k/mask2former_eva_g_512_24gb",
        "eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth",
    ),
    "classification": ("eva_l_patch14_in21k_to_in1k_336px", "eva_l_psz14_21k_ft.pt"),
    "video": ("own_videos", "eva_video_k722.pth"),
    "clip": ("own_pairs", "eva_clip_psz14.pt"),
}
EOMT = {
    "mmdetection": ("custom/eomt_eva_l_24gb", "eva_l_psz14.pt"),
    "segmentation": ("ade20k/eomt_eva_l_512_24gb", "eva_l_psz14.pt"),
}


def choose_recipe(task: str, head: str | None, data: Path, rest: Sequence[str]) -> Words:
    """Choose a recipe, with settings, by the card and the weights that can be had; say why."""
    large, weights = (EOMT if head else _RECIPES)[task]
    has_weights = any((folder / weights).is_file() for folder in weights_directories())
    if has_weights and _card_memory() > _LARGE:
        return [large]
    echo(f"{large} would need a GPU of 24 GB and `eva weights get {weights}`")
    names = [recipe.name for recipe in list_recipes(task) if recipe.name.endswith("_small")]
    if head:
        return [name for name in names if head in name]
    small = (name for name in names if "eomt" not in name)
    return find_start(task, data, rest, next(small, "eva_debug_captions"))  # of CLIP


def find_start(task: str, data: Path, words: Sequence[str], small: str) -> Words:
    """Choose recipe and settings of a training, and fetch the small weights that it begins from.

    Where there are none, or the user's `words` name others, that is the recipe `small` alone.
    """
    memory = _card_memory()
    name = next(name for least, name in _BY_MEMORY if memory >= least)
    if task not in _ON_CARDS or _has_weights(words) or not fetch_start(name):
        return [small]
    if name in _ON_CARDS[task]:
        return [*_ON_CARDS[task][name], "--backbone", name]
    settings = [small, "--backbone", name]
    if task == "classification":
        images = sum(1 for _ in find_files(data, IMAGE_SUFFIXES))
        epochs = min(30, max(3, _SAMPLES // max(1, images)))
        settings += ["--image-size", "112", "--epochs", str(epochs)]
    return settings


def _card_memory() -> int:
    """Return the bytes of the first GPU, 0 without one."""
    if not torch.cuda.is_available():
        return 0
    card: Any = torch.cuda.get_device_properties(0)
    return int(card.total_memory)


def require_task(task: str, option: str, tasks: Collection[str]) -> None:
    """Refuse, by a ValueError, an option that is of other tasks."""
    if task not in tasks:
        raise ValueError(f"{option} is for {', '.join(tasks)}, not for {task or 'these data'}")


def plan_demo(task: str) -> Words:
    """Write the settings by which a recipe of the demo begins from small weights; may be empty."""
    require_task(task, "--pretrained", _ON_CARDS)
    size = ["--image-size", "112", "--epochs", "4"] if task == "classification" else []
    name = "eva02_ti14"
    return ["--backbone", name, *size] if fetch_start(name) else []


def plan_quick(task: str, data: Mapping[str, str], words: Sequence[str], output: str) -> Words:
    """Write the command that trains a linear head on frozen features, with the user's `words`.

    `data` are the options that name the data to the task's training, `output` is the folder of a
    classifier's run. Weights of the user's own see images of their size.
    """
    require_task(task, "--quick", ("classification", "segmentation"))
    name = _QUICK if not _has_weights(words) and fetch_start(_QUICK) else BUNDLED
    if task == "segmentation":
        backbone = ["--backbone", name] if name != BUNDLED else []
        command = ["segmentation train", "custom/linear_eva_small_quick"]
        return [*command, *backbone, *chain(*data.items()), *words]
    if any(re.match(r"--(data\.)?bands(=|$)", word) for word in words):
        raise ValueError("--quick is of frozen features of RGB: leave it out with --bands")
    samples = [(flag.replace("--data.", "--"), value) for flag, value in data.items() if value]
    words = [re.sub(r"^--backbone(?=$|=)", "--weights", word) for word in words]
    start = ["--weights", name, "--image-size", "112" if name == _QUICK else "64"]
    if "--weights" in (word.partition("=")[0] for word in words):
        start = []
    start += [*chain(*samples), "--neighbours", "--output", output]
    return ["classification evaluate-frozen", *start, "--save", *words]


def _has_weights(words: Sequence[str]) -> bool:
    flags = (word.partition("=")[0] for word in words if word.startswith("--") or "=" in word)
    return any(_OWN.fullmatch(flag) for flag in flags)


def fetch_start(name: str) -> bool:
    """Fetch hosted weights if they are not here, say what they are; return whether they are here.

    Raises:
        ValueError: If the file is not the one whose SHA-256 the hub states.
    """
    hosted = HOSTED_FILES[name]
    file = HubFile(hosted.repository)
    try:
        path = find_cached(file)
        if path is None:
            echo(f"fetching {name}, {look_up(file) / 1e6:,.0f} MB, once")
            path = Path(resolve_source(name))
    except (HubError, FileNotFoundError) as error:
        why = error.__cause__ if isinstance(error.__cause__, HubError) else error
        echo(
            f"{name} is not here ({why}): the bundled {BUNDLED} has seen digits alone, so scores "
            f"will be a baseline's; `eva weights get {name}` where there is a network"
        )
        return False
    digest = path.resolve().name  # so the hub's cache calls a file whose SHA-256 the hub states
    if re.fullmatch("[0-9a-f]{64}", digest):
        verify_once(path, digest, advice=f"remove {path.resolve()}", of="the file on the hub")
    else:
        digest = "not stated by the hub"
    size = path.stat().st_size / 1e6
    echo(f"weights {name}: {hosted.repository}, {size:,.0f} MB, {hosted.licence}, SHA-256 {digest}")
    return True

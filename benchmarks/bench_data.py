"""Cases of the bench without a model: scores, files, commands, set-up."""

import contextlib
import copy
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import detectron2.data.transforms as T
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import DatasetMapper, MetadataCatalog
from faster_coco_eval import COCO, COCOeval_faster
from lvis import LVIS, LVISEval, LVISResults
from measuring import Case, Scale, require_same
from numpy.typing import NDArray
from PIL import Image
from pycocotools import coco, cocoeval, mask
from torchvision import transforms
from torchvision.datasets import ImageFolder

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.labelled_images import open_labelled
from eva_data.transforms import evaluation_transform
from eva_data.video.source import open_video
from eva_detection.data.mapper import ImageMapper
from eva_detection.evaluation.evaluators import CocoEvaluator, LvisEvaluator

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 500, 375
LENGTH, RATE = 300, 30  # frames of a video
CLIPS = 5  # of a call
KINDS = {"COCO": 80, "LVIS": 1203}
OBJECTS, FOUND = 7, 100  # of an image

Result = dict[str, Any]


def annotate(images: int, kinds: int) -> tuple[dict[str, Any], list[list[Result]]]:
    """Make annotations in LVIS's format, which COCO's readers take, and detections of each image.

    Most objects are found, with another outline; other detections are anywhere.
    """
    chance = np.random.default_rng(0)
    labels: list[dict[str, Any]] = []
    detections: list[list[Result]] = []

    def outline() -> NDArray[np.float64]:
        size, angles = chance.lognormal(3.5, 0.8), np.linspace(0, 2 * np.pi, 24, endpoint=False)
        centre = chance.uniform(0, (WIDTH, HEIGHT))
        circle = np.stack([np.cos(angles), np.sin(angles)], 1) * chance.uniform(0.7, 1, (24, 1))
        points = centre + circle * size
        return points.clip(0, (WIDTH - 1, HEIGHT - 1))

    def box(points: NDArray[np.float64]) -> list[float]:
        low, high = points.min(0), points.max(0)
        return [*map(float, (*low, *(high - low)))]

    entries: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        objects = [(outline(), int(chance.integers(1, kinds + 1))) for _ in range(OBJECTS)]
        for points, kind in objects:
            labels.append({
                "id": len(labels) + 1, "image_id": image, "category_id": kind, "iscrowd": 0,
                "bbox": box(points), "area": float(box(points)[2] * box(points)[3] * 0.7),
                "segmentation": [points.flatten().tolist()],
            })  # fmt: skip
        known = {kind for _, kind in objects}
        absent = [*({*chance.integers(1, kinds + 1, 3).tolist()} - known)]
        entries.append({
            "id": image, "width": WIDTH, "height": HEIGHT, "neg_category_ids": absent,
            "not_exhaustive_category_ids": [], "coco_url": "",
        })  # fmt: skip
        found: list[Result] = []
        for number in range(FOUND):
            right = number < OBJECTS - 1
            points, kind = (
                objects[number] if right else (outline(), sorted(known)[number % len(known)])
            )
            points = (points + chance.normal(0, 2, points.shape)).clip(0, (WIDTH - 1, HEIGHT - 1))
            rle = mask.frPyObjects([points.flatten().tolist()], HEIGHT, WIDTH)[0]
            rle["counts"] = rle["counts"].decode()
            score = float(chance.beta(4, 2) if right else chance.beta(1, 4))
            found.append({"image_id": image, "category_id": kind, "bbox": box(points),
                          "score": score, "segmentation": rle})  # fmt: skip
        detections.append(found)
    categories = [
        {"id": kind, "name": f"class {kind}", "frequency": "rcf"[kind % 3]}
        for kind in range(1, kinds + 1)
    ]
    info: dict[str, Any] = {"info": {}, "licenses": []}
    return info | {"images": entries, "annotations": labels, "categories": categories}, detections


def scoring(scale: Scale, device: torch.device) -> Iterator[Case]:
    """COCO's box and mask AP beside pycocotools and faster-coco-eval's own evaluator."""

    def peer(reader: Any, evaluator: Any) -> Callable[[Path, Mapping[str, Any]], list[float]]:
        def score(file: Path, found: Mapping[str, Any]) -> list[float]:
            truth, scores = reader(str(file)), []
            for kind, ones in found.items():
                scorer = evaluator(truth, truth.loadRes(without(ones, kind)), kind)
                for stage in (scorer.evaluate, scorer.accumulate, scorer.summarize):
                    stage()
                scores.append(100 * float(scorer.stats[0]))
            return scores

        return score

    yield from _scores("COCO", scale, CocoEvaluator, {
        "pycocotools": peer(coco.COCO, cocoeval.COCOeval),
        "faster-coco-eval": peer(COCO, COCOeval_faster),
    })  # fmt: skip


def lvis(scale: Scale, device: torch.device) -> Iterator[Case]:
    """LVIS's box and mask AP beside lvis-api."""
    vars(np).setdefault("float", float)  # lvis-api names what numpy 1.24 has removed
    logging.getLogger("lvis").setLevel(logging.ERROR)

    def score(file: Path, found: Mapping[str, Any]) -> list[float]:
        truth, scores = LVIS(str(file)), []
        for kind, ones in found.items():
            scorer = LVISEval(truth, LVISResults(truth, without(ones, kind)), kind)
            scorer.run()
            scores.append(100 * float(scorer.get_results()["AP"]))
        return scores

    yield from _scores("LVIS", scale, LvisEvaluator, {"lvis-api": score})


def without(found: Iterator[Result], kind: str) -> list[Result]:
    """Leave out boxes for masks and masks for boxes, as all evaluators do."""
    unused = "segmentation" if kind == "bbox" else "bbox"
    return [{key: value for key, value in one.items() if key != unused} for one in found]


def _scores(
    title: str, scale: Scale, evaluator: Any, peers: Mapping[str, Callable[..., list[float]]]
) -> Iterator[Case]:

    kinds = KINDS[title]
    data, images = annotate(scale.items * (2 if title == "COCO" else 1), kinds)
    every = [one for image in images for one in image]
    found = {"bbox": every, "segm": every}
    with tempfile.TemporaryDirectory() as folder:
        file, name = Path(folder, "labels.json"), f"bench_{folder}"
        file.write_text(json.dumps(data))
        ids = {kind: kind - 1 for kind in range(1, kinds + 1)}
        MetadataCatalog.get(name).set(
            json_file=str(file), thing_dataset_id_to_contiguous_id=ids,
            thing_classes=[one["name"] for one in data["categories"]],
        )  # fmt: skip

        def ours() -> list[float]:
            one = evaluator(name, distributed=False)
            one.reset()
            one._predictions, one._masks = images, True  # as `process` keeps them
            return [float(scores["AP"]) for scores in one.evaluate().values()]

        def quietly(call: Callable[[], list[float]]) -> list[float]:
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                return call()

        calls = {"ours": ours} | {
            name: partial(quietly, partial(peer, file, found)) for name, peer in peers.items()
        }
        wanted, *others = (torch.tensor(call()) for call in calls.values())
        for other in others:
            require_same(f"{title} scores", other, wanted)
        text = f"{title} scoring, boxes and masks, {len(images)} images, {len(every)} detections"
        yield Case(text, calls, items=len(images), unit="images")
        MetadataCatalog.pop(name)


def write_video(file: Path, *, gop: int) -> None:
    """Write a camera that moves over a landscape of noise, with some noise of its own."""
    height, width, random = 256, 340, torch.Generator().manual_seed(0)
    land = torch.zeros(1, 3, 2 * height, 2 * width)
    for scale in (4, 16, 64):  # more of the coarse than of the fine, as in photographs
        noise = torch.randn(1, 3, 2 * height // scale, 2 * width // scale, generator=random)
        land += 8 * scale**0.5 * F.interpolate(noise, land.shape[-2:], mode="bicubic")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(LENGTH):
            angle = 2 * np.pi * number / LENGTH
            y, x = int(height / 2 * (1 + np.sin(angle))), int(width / 2 * (1 + np.cos(angle)))
            view = land[0, :, y : y + height, x : x + width]
            view = 128 + view + 2 * torch.randn(view.shape, generator=random)
            rgb = view.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def video(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Clips of a video as Kinetics is kept (H.264, 340 x 256 px) beside a plain loop of PyAV."""
    indices = [int((part + 0.5) * LENGTH / 16) for part in range(16)]

    def ours(file: Path) -> Any:
        with open_video(file) as source:
            return source.frames(indices)

    def peer(file: Path) -> Any:
        with av.open(str(file)) as container:
            every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack([every[index] for index in indices])

    def several(read: Callable[[Path], Any], file: Path) -> None:
        for _ in range(CLIPS):
            read(file)

    with tempfile.TemporaryDirectory() as folder:
        for gop in (12, 250):
            file = Path(folder, f"{gop}.mp4")
            write_video(file, gop=gop)
            difference = np.abs(ours(file).astype(int) - peer(file)).mean()
            if difference > 1:  # roundings of the conversion to RGB
                raise ValueError(f"video: the frames differ by {difference:.1f} of 255")
            ways = {"ours": ours, "PyAV, every frame": peer}
            calls = {name: partial(several, read, file) for name, read in ways.items()}
            title = f"video, 16 of {LENGTH} frames, a keyframe every {gop}"
            yield Case(title, calls, items=CLIPS, unit="clips")


def write_images(folder: Path, number: int, *, kinds: int) -> None:
    """Write coarse noise as JPEG files of some classes."""
    random = np.random.default_rng(0)
    for index in range(number):
        coarse = random.integers(0, 256, (25, 33, 3), dtype=np.uint8)
        place = folder / f"class {index % kinds}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(place / f"{index:06}.jpg", quality=90)


def loading(scale: Scale, device: torch.device) -> Iterator[Case]:
    """JPEG files of 500 x 375 px, read by one process: for a classifier, and for a detector."""
    number = max(4, scale.items // 4)
    normal: Any = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), number, kinds=2)
        bicubic = transforms.InterpolationMode.BICUBIC
        steps = [transforms.Resize(224, bicubic), transforms.CenterCrop(224)]
        steps += [transforms.ToTensor(), transforms.Normalize(**normal)]
        sets: dict[str, Any] = {
            "ours": open_labelled(folder, evaluation_transform(224, **normal), upright=True),
            "torchvision, ImageFolder": ImageFolder(folder, transforms.Compose(steps)),
        }
        require_same("loading", *(one[0][0] for one in sets.values()))
        calls = {name: partial(_read_all, one.__getitem__, range(number))
                 for name, one in sets.items()}  # fmt: skip
        yield Case("loading for a classifier, 224 px", calls, items=number, unit="images")

        objects, _ = annotate(number, KINDS["COCO"])
        files = sorted(Path(folder).rglob("*.jpg"))
        records = [
            {"file_name": str(file), "image_id": index, "width": WIDTH, "height": HEIGHT,
             "annotations": [one | {"bbox_mode": 1} for one in objects["annotations"]
                             if one["image_id"] == index]}
            for index, file in enumerate(files, 1)
        ]  # fmt: skip
        jitter = [T.RandomFlip(), T.ResizeScale(0.1, 2.0, 1024, 1024),
                  T.FixedSizeCrop((1024, 1024), pad=False)]  # fmt: skip
        options: dict[str, Any] = {
            "is_train": True, "augmentations": jitter, "image_format": "RGB",
            "use_instance_mask": True, "recompute_boxes": True,
        }  # fmt: skip
        mappers = {"ours": ImageMapper, "detectron2, DatasetMapper": DatasetMapper}
        calls = {
            name: partial(_read_all, mapper(**options), copy.deepcopy(records))
            for name, mapper in mappers.items()
        }
        title = "loading for a detector, large-scale jitter to 1024 px"
        yield Case(title, calls, items=number, unit="images")


def _read_all(read: Callable[[Any], object], keys: Any) -> None:
    np.random.seed(0)  # noqa: NPY002  # detectron2's augmentations draw from it
    for key in keys:
        read(key)


def commands(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Start-up of commands beside the import of torch, and detectron2's own training program."""

    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    eva = partial(run, "-m", "eva_command")
    yield Case("`eva --help`", {
        "ours": partial(eva, "--help"), "import torch": partial(run, "-c", "import torch"),
    })  # fmt: skip
    stock = partial(run, "-m", "detectron2_tools.lazyconfig_train_net", "--help")
    yield Case("`eva detection train --help`", {
        "ours": partial(eva, "detection", "train", "--help"), "detectron2": stock,
    })  # fmt: skip


def setup(scale: Scale, device: torch.device) -> Iterator[Case]:
    """`make setup` in a fresh clone of the last commit, once."""

    def run() -> None:
        subprocess.run(["make", "setup"], cwd=clone, check=True, stdout=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        yield Case("`make setup` in a fresh clone", {"ours": run}, once=True)

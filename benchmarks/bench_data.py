"""Cases of the bench without a model: scores, files, commands, set-up."""

import contextlib
import copy
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import detectron2.data.transforms as T
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances
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
OBJECTS, FOUND = 7, 100  # of an image
# a peer's reader of annotations and of detections, its evaluator, and where that keeps AP
PEERS: dict[str, tuple[Any, ...]] = {
    "pycocotools": (coco.COCO, coco.COCO.loadRes, cocoeval.COCOeval, "stats", 0),
    "lvis-api": (LVIS, LVISResults, LVISEval, "results", "AP"),
}
Entry = dict[str, Any]


def annotate(images: int, kinds: int) -> tuple[Entry, list[list[Entry]]]:
    """Make annotations in LVIS's format, which COCO's readers take, and detections of each image.

    Most objects are found, with another outline; other detections are anywhere.
    """
    chance = np.random.default_rng(0)
    labels: list[Entry] = []
    entries: list[Entry] = []
    detections: list[list[Entry]] = []
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle, edges = np.stack([np.cos(angles), np.sin(angles)], 1), (WIDTH - 1, HEIGHT - 1)

    def outline() -> NDArray[np.float64]:
        size, centre = chance.lognormal(3.5, 0.8), chance.uniform(0, (WIDTH, HEIGHT))
        return (centre + circle * chance.uniform(0.7, 1, (24, 1)) * size).clip(0, edges)

    def entry(image: int, kind: int, points: NDArray[np.float64]) -> Entry:
        low, high = points.min(0), points.max(0)
        return {
            "image_id": image,
            "category_id": kind,
            "segmentation": [points.flatten().tolist()],
            "bbox": [*low.tolist(), *(high - low).tolist()],
        }

    for image in range(1, images + 1):
        objects = [(outline(), int(chance.integers(1, kinds + 1))) for _ in range(OBJECTS)]
        for points, kind in objects:
            label = entry(image, kind, points) | {"id": len(labels) + 1, "iscrowd": 0}
            labels.append(label | {"area": label["bbox"][2] * label["bbox"][3] * 0.7})
        present = {kind for _, kind in objects}
        absent = [*({*chance.integers(1, kinds + 1, 3).tolist()} - present)]
        image_entry: Entry = {"id": image, "width": WIDTH, "height": HEIGHT, "coco_url": ""}
        image_entry |= {"neg_category_ids": absent, "not_exhaustive_category_ids": []}
        entries.append(image_entry)
        detections.append([])
        for number in range(FOUND):
            right = number < OBJECTS - 1
            if right:
                points, kind = objects[number]
            else:
                points, kind = outline(), sorted(present)[number % len(present)]
            points = (points + chance.normal(0, 2, points.shape)).clip(0, edges)
            annotation = entry(image, kind, points)
            rle = mask.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)[0]
            annotation["segmentation"] = rle | {"counts": rle["counts"].decode()}
            score = chance.beta(4, 2) if right else chance.beta(1, 4)
            detections[-1].append(annotation | {"score": float(score)})
    categories = [
        {"id": kind, "name": f"class {kind}", "frequency": "rcf"[kind % 3]}
        for kind in range(1, kinds + 1)
    ]
    data = {"images": entries, "annotations": labels, "categories": categories}
    return data | {"info": {}, "licenses": []}, detections


def scoring(scale: Scale, device: torch.device) -> Iterator[Case]:
    """COCO's box and mask AP beside pycocotools."""
    return _scores("COCO", CocoEvaluator, 2 * scale.items, 80, "pycocotools")


def lvis(scale: Scale, device: torch.device) -> Iterator[Case]:
    """LVIS's box and mask AP beside lvis-api."""
    vars(np).setdefault("float", float)  # lvis-api names what numpy 1.24 has removed
    logging.getLogger("lvis").setLevel(logging.ERROR)
    return _scores("LVIS", LvisEvaluator, scale.items, 1203, "lvis-api")


def detected(entries: list[Entry]) -> tuple[Entry, Entry]:
    """Make an image's input and output of a detector, whose masks are encoded at once."""
    boxes, scores, kinds, masks = (
        [entry[key] for entry in entries]
        for key in ("bbox", "score", "category_id", "segmentation")
    )
    instances = Instances((HEIGHT, WIDTH), scores=torch.tensor(scores), pred_masks_rle=masks)
    corners = torch.tensor(boxes)
    corners[:, 2:] += corners[:, :2]
    instances.pred_boxes = Boxes(corners)
    instances.pred_classes = torch.tensor(kinds) - 1
    return {"image_id": entries[0]["image_id"]}, {"instances": instances}


def _scores(title: str, evaluator: Any, count: int, kinds: int, peer: str) -> Iterator[Case]:
    data, images = annotate(count, kinds)
    inputs, outputs = zip(*map(detected, images), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        file, name = Path(folder, "labels.json"), f"bench_{folder}"
        file.write_text(json.dumps(data))
        MetadataCatalog.get(name).set(
            json_file=str(file),
            thing_classes=[category["name"] for category in data["categories"]],
            thing_dataset_id_to_contiguous_id={kind: kind - 1 for kind in range(1, kinds + 1)},
        )

        def ours() -> list[float]:
            scorer = evaluator(name, distributed=False)
            scorer.reset()
            scorer.process(inputs, outputs)
            return [float(scores["AP"]) for scores in scorer.evaluate().values()]

        calls: dict[str, Any] = {
            "ours": ours,
            peer: partial(_peer_scores, file, inputs, outputs, *PEERS[peer]),
        }
        reference, other = (torch.tensor(call()) for call in calls.values())
        require_same(f"{title} scores", other, reference)
        total = sum(map(len, images))
        title_line = f"{title} scoring, boxes and masks, {count} images, {total} detections"
        yield Case(title_line, calls, items=count, unit="images")
        MetadataCatalog.pop(name)


def _peer_scores(
    file: Path,
    inputs: Any,
    outputs: Any,
    reader: Any,
    results: Any,
    evaluator: Any,
    attribute: str,
    key: Any,
) -> list[float]:
    detections = []
    for image, output in zip(inputs, outputs, strict=True):
        entries = instances_to_coco_json(output["instances"], image["image_id"])
        for entry, code in zip(entries, output["instances"].pred_masks_rle, strict=True):
            detections.append(
                entry | {"category_id": entry["category_id"] + 1, "segmentation": code}
            )
    scores = []
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        truth = reader(str(file))
        for kind, unused in (("bbox", "segmentation"), ("segm", "bbox")):  # as all evaluators do
            ones = [
                {name: detection[name] for name in detection.keys() - {unused}}
                for detection in detections
            ]
            scorer = evaluator(truth, results(truth, ones), kind)
            for stage in (scorer.evaluate, scorer.accumulate, scorer.summarize):
                stage()
            scores.append(100 * float(getattr(scorer, attribute)[key]))
    return scores


def write_video(file: Path, *, gop: int) -> None:
    """Write a camera that moves over a landscape of noise, with some noise of its own."""
    height, width, random = 256, 340, torch.Generator().manual_seed(0)
    land = torch.zeros(1, 3, 2 * height, 2 * width)
    for scale in (4, 16, 64):  # more of the coarse than of the fine, as in photographs
        noise = torch.randn(1, 3, 2 * height // scale, 2 * width // scale, generator=random)
        land += 8 * scale**0.5 * F.interpolate(noise, land.shape[-2:], mode="bicubic")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", RATE, {"g": str(gop)}, height=height, width=width)
        for angle in 2 * np.pi * np.arange(LENGTH) / LENGTH:
            y, x = int(height / 2 * (1 + np.sin(angle))), int(width / 2 * (1 + np.cos(angle)))
            view = 128 + land[0, :, y : y + height, x : x + width]
            view = view + 2 * torch.randn(view.shape, generator=random)
            rgb = view.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
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

    with tempfile.TemporaryDirectory() as folder:
        for gop in (12, 250):
            file = Path(folder, f"{gop}.mp4")
            write_video(file, gop=gop)
            difference = np.abs(ours(file).astype(int) - peer(file)).mean()
            if difference > 1:  # roundings of the conversion to RGB
                raise ValueError(f"video: the frames differ by {difference:.1f} of 255")
            calls = {
                name: partial(_each, read, [file] * CLIPS)
                for name, read in (("ours", ours), ("PyAV, every frame", peer))
            }
            title = f"video, 16 of {LENGTH} frames, a keyframe every {gop}"
            yield Case(title, calls, items=CLIPS, unit="clips")


def _each(call: Callable[[Any], object], items: Iterable[Any]) -> None:
    np.random.seed(0)  # noqa: NPY002  # detectron2's augmentations draw from it
    for item in items:
        call(item)


def write_images(folder: Path, number: int, *, kinds: int) -> None:
    """Write coarse noise as JPEG files of some classes."""
    random = np.random.default_rng(0)
    for index in range(number):
        coarse = random.integers(0, 256, (25, 33, 3), dtype=np.uint8)
        class_folder = folder / f"class {index % kinds}"
        class_folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(class_folder / f"{index:06}.jpg", quality=90)


def loading(scale: Scale, device: torch.device) -> Iterator[Case]:
    """JPEG files of 500 x 375 px, read by one process: for a classifier, and for a detector."""
    number, normal = max(4, scale.items // 4), dict[str, Any](mean=IMAGENET_MEAN, std=IMAGENET_STD)
    notes: Any = {"items": number, "unit": "images"}
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(224, bicubic), transforms.CenterCrop(224)]
    steps += [transforms.ToTensor(), transforms.Normalize(**normal)]
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), number, kinds=2)
        sets: Any = {
            "ours": open_labelled(folder, evaluation_transform(224, **normal), upright=True),
            "torchvision, ImageFolder": ImageFolder(folder, transforms.Compose(steps)),
        }
        require_same("loading", *(dataset[0][0] for dataset in sets.values()))
        calls = {
            name: partial(_each, dataset.__getitem__, range(number))
            for name, dataset in sets.items()
        }
        yield Case("loading for a classifier, 224 px", calls, **notes)

        objects = annotate(number, 80)[0]["annotations"]
        records = [
            {
                "file_name": str(file),
                "image_id": index,
                "width": WIDTH,
                "height": HEIGHT,
                "annotations": [
                    annotation | {"bbox_mode": 1}
                    for annotation in objects
                    if annotation["image_id"] == index
                ],
            }
            for index, file in enumerate(sorted(Path(folder).rglob("*.jpg")), 1)
        ]
        jitter = [
            T.RandomFlip(),
            T.ResizeScale(0.1, 2.0, 1024, 1024),
            T.FixedSizeCrop((1024, 1024), pad=False),
        ]
        options: Any = {
            "is_train": True,
            "augmentations": jitter,
            "image_format": "RGB",
            "use_instance_mask": True,
            "recompute_boxes": True,
        }
        mappers: Any = {"ours": ImageMapper, "detectron2, DatasetMapper": DatasetMapper}
        calls = {
            name: partial(_each, mapper(**options), copy.deepcopy(records))
            for name, mapper in mappers.items()
        }
        yield Case("loading for a detector, large-scale jitter to 1024 px", calls, **notes)


def commands(scale: Scale, device: torch.device) -> Iterator[Case]:
    """Start-up of commands beside the import of torch, and detectron2's own training program."""
    eva, stock = "-m eva_command", "-m detectron2_tools.lazyconfig_train_net --help"
    for command, peer, words in (
        ("--help", "import torch", ["-c", "import torch"]),
        ("detection train --help", "detectron2", stock.split()),
    ):
        both = {"ours": f"{eva} {command}".split(), peer: words}
        calls = {
            name: partial(_run, sys.executable, *arguments) for name, arguments in both.items()
        }
        yield Case(f"`eva {command}`", calls)


def _run(*words: str, cwd: str | None = None) -> None:
    subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def setup(scale: Scale, device: torch.device) -> Iterator[Case]:
    """`make setup` in a fresh clone of the last commit, once."""
    with tempfile.TemporaryDirectory() as folder:
        _run("git", "clone", "-q", str(ROOT), folder)
        run = partial(_run, "make", "setup", cwd=folder)
        yield Case("`make setup` in a fresh clone", {"ours": run}, once=True)

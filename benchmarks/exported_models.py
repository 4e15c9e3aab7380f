"""Files of `eva export` beside the model in PyTorch: score, size, latency of one image.

    python benchmarks/exported_models.py detection RUN IMAGES ANNOTATIONS.json FILE...
    python benchmarks/exported_models.py segmentation RUN IMAGES MAPS FILE...
    python benchmarks/exported_models.py classification RUN FOLDER - FILE...

Scores are box AP, mIoU and top-1; maps count from 1. Latency is that of the program alone, median
and extremes of rounds in turns.
"""

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hotcoco import COCO, COCOeval
from PIL import Image
from torch import Tensor

from eva_runs.exported import open_program

Program = Callable[[dict[str, Tensor]], dict[str, Tensor]]
ROUNDS, PART = 9, 4  # of timings; images of each


class _Detection:
    """Boxes of COCO's images."""

    def __init__(self, run: str, images: Path, annotations: str) -> None:
        self.predictor = importlib.import_module(
            "eva_detection.inference.predictor"
        ).Predictor.from_run(run, score_threshold=0.05, device="cpu")
        self.truth = COCO(annotations)
        self.entries = [self.truth.imgs[index] for index in self.truth.getImgIds()]
        self.files = [images / entry["file_name"] for entry in self.entries]
        self.categories = self.truth.getCatIds()

    def prepare(self, file: Path) -> Tensor:
        return self.predictor.prepare(file)["image"][None]

    def model(self, images: Tensor) -> dict[str, Tensor]:
        (result,) = self.predictor.model.inference([{"image": images[0]}], do_postprocess=False)
        return {k: getattr(v, "tensor", v) for k, v in result.get_fields().items()}

    def score(self, program: Program) -> float:
        results = []
        for entry, file in zip(self.entries, self.files, strict=True):
            images = self.prepare(file)
            outputs = program({"images": images})
            scale = entry["height"] / images.shape[2]
            rows = zip(*(outputs[k] for k in ("pred_boxes", "scores", "pred_classes")), strict=True)
            for box, score, index in rows:
                left, top, right, bottom = (box * scale).tolist()
                results.append(
                    {
                        "image_id": entry["id"],
                        "category_id": self.categories[int(index)],
                        "bbox": [left, top, right - left, bottom - top],
                        "score": float(score),
                    }
                )
        evaluation = COCOeval(self.truth, self.truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return 100 * float(evaluation.stats[0])


class _Segmentation:
    """Classes of pixels."""

    def __init__(self, run: str, images: Path, maps: str) -> None:
        self.predictor = importlib.import_module(
            "eva_segmentation.inference.predictor"
        ).Predictor.from_run(run, device="cpu")
        self.files, self.maps = sorted(images.iterdir()), Path(maps)

    def prepare(self, file: Path) -> Tensor:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]

    def model(self, images: Tensor) -> dict[str, Tensor]:
        image = images[0].permute(1, 2, 0).byte().numpy()
        return {"labels": self.predictor.sample(image).pred_sem_seg.data}

    def score(self, program: Program) -> float:
        count = len(self.predictor.names)
        confusion = np.zeros((count, count))
        for file in self.files:
            labels = program({"images": self.prepare(file)})["labels"][0].numpy()
            with Image.open(self.maps / f"{file.stem}.png") as annotation:
                truth = np.asarray(annotation).astype(int) - 1
            seen = (truth >= 0) & (truth < count)
            np.add.at(confusion, (truth[seen], labels[seen]), 1)
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        return 100 * float(np.mean((confusion.diagonal() / union)[confusion.sum(1) > 0]))


class _Classification:
    """Class folders."""

    def __init__(self, run: str, images: Path, _: str) -> None:
        self.predictor = importlib.import_module(
            "eva_classification.inference.predictor"
        ).Predictor.from_run(run, device="cpu", precision="fp32")
        self.files = sorted(images.glob("*/*"))

    def prepare(self, file: Path) -> Tensor:
        return self.predictor.prepare(file)[None]

    def model(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.predictor.model(images)}

    def score(self, program: Program) -> float:
        names = self.predictor.class_names
        hits = [
            names[int(program({"images": self.prepare(file)})["logits"].argmax())]
            == file.parent.name
            for file in self.files
        ]
        return 100 * float(np.mean(hits))


TASKS: dict[str, Any] = {
    "detection": _Detection,
    "segmentation": _Segmentation,
    "classification": _Classification,
}


@torch.inference_mode()
def main(words: list[str]) -> None:
    """Print a row of a table for the model and for each file."""
    task = TASKS[words[0]](words[1], Path(words[2]), words[3])
    programs: dict[str, Any] = {"PyTorch": lambda inputs: task.model(*inputs.values())}
    programs |= {file: open_program(Path(file)) for file in words[4:]}
    inputs = [{"images": task.prepare(file)} for file in task.files[:PART]]
    scores = {name: task.score(program) for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            began = time.perf_counter()
            for batch in inputs:
                program(batch)
            times[name].append((time.perf_counter() - began) / len(inputs) * 1000)
    for name, values in times.items():
        parts = [Path(name)]
        parts += [Path(name).with_suffix(".bin")] if name.endswith(".xml") else []
        size = sum(part.stat().st_size for part in parts if part.exists()) / 2**20
        middle, least, most = statistics.median(values), min(values), max(values)
        print(
            f"| {name} | {scores[name]:.2f} | {size:.1f} | {middle:.0f} ({least:.0f}-{most:.0f}) |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])

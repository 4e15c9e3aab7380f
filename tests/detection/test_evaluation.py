"""Scores against pycocotools, the official lvis package and a loop over the definitions."""

import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from lvis import LVIS, LVISEval, LVISResults
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eva_detection.evaluation import evaluators as evaluation
from eva_detection.evaluation.evaluators import CocoEvaluator, LvisEvaluator
from eva_report.content import Confusion
from eva_report.detection import detection_sections

SIZE = (150, 170)  # high, wide; the boundary is 5 pixels thick
TESTS = Path(__file__).resolve().parent
NAME = "scenes_of_rectangles"
COCO_METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
LVIS_METRICS = [*COCO_METRICS, "APr", "APc", "APf"]


def _ellipse(box):
    """Mask of the ellipse in a box x, y, w, h."""
    x, y, w, h = box
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2
    return inside <= 1


def _rle(mask):
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _box(rng):
    w, h = rng.choice([15, 60, 125]) * rng.uniform(0.6, 1.15, 2)
    return [rng.uniform(0, SIZE[1] - w), rng.uniform(0, SIZE[0] - h), w, h]


def _truth(*, images, classes, federated, seed):
    """Categories have ids 1, 3, 5, ...; three fifths of all pairs of image and class."""
    rng = np.random.default_rng(seed)
    categories = [
        {"id": 2 * label + 1, "name": f"c{label}", "frequency": "rcf"[label % 3]}
        for label in range(classes)
    ]
    dataset = {"info": {}, "images": [], "annotations": [], "categories": categories}
    for image_id in range(10, 10 + images):
        entry = {"id": image_id, "height": SIZE[0], "width": SIZE[1]}
        negative, unsure = [], []
        for category in categories:
            kind = rng.integers(5)
            if kind < 3:
                for _ in range(rng.integers(1, 5)):
                    box = _box(rng)
                    mask = _ellipse(box)
                    crowd = not federated and rng.random() < 0.15
                    dataset["annotations"].append(
                        {
                            "id": len(dataset["annotations"]) + 1,
                            "image_id": image_id,
                            "category_id": category["id"],
                            "bbox": box,
                            "segmentation": _rle(mask),
                            "area": float(mask.sum()),
                            "iscrowd": int(crowd),
                        }
                    )
                if kind == 2:
                    unsure.append(category["id"])
            elif kind == 3:
                negative.append(category["id"])
        if federated:
            entry |= {"neg_category_ids": negative, "not_exhaustive_category_ids": unsure}
        dataset["images"].append(entry)
    if federated:
        for annotation in dataset["annotations"]:
            del annotation["iscrowd"]
    return dataset


def _instances(boxes, scores, classes, *, masks=True):
    instances = Instances(SIZE)
    boxes = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
    instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
    instances.scores = torch.tensor(np.array(scores), dtype=torch.float32)
    instances.pred_classes = torch.tensor(np.array(classes), dtype=torch.int64)
    if masks:
        found = [_ellipse(box) for box in boxes.tolist()]
        instances.pred_masks = torch.tensor(np.array(found, dtype=bool).reshape(-1, *SIZE))
    return instances


def _predict(dataset, *, extra, seed):
    """Displaced truth, sometimes with a wrong class, and noise; scores with ties."""
    rng = np.random.default_rng(seed)
    labels = {entry["id"]: label for label, entry in enumerate(dataset["categories"])}
    by_image = defaultdict(list)
    for annotation in dataset["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for number, entry in enumerate(dataset["images"]):
        boxes, scores, classes = [], [], []
        for annotation in by_image[entry["id"]]:
            for _ in range(rng.integers(0, 4)):
                x, y, w, h = annotation["bbox"]
                shift, scale = rng.normal(0, 0.08, 2), np.exp(rng.normal(0, 0.1, 2))
                boxes.append([x + shift[0] * w, y + shift[1] * h, w * scale[0], h * scale[1]])
                scores.append(round(rng.uniform(0.2, 1), 1))
                right = labels[annotation["category_id"]]
                classes.append(right if rng.random() < 0.9 else rng.integers(len(labels)))
        for _ in range(extra if number == 1 else 5):
            boxes.append(_box(rng))
            scores.append(round(rng.uniform(0.05, 0.9), 2))
            classes.append(0 if rng.random() < 0.6 else rng.integers(len(labels)))
        order = rng.permutation(len(boxes))  # the evaluator may not rely on sorted scores
        parts = ([values[i] for i in order] for values in (boxes, scores, classes))
        yield {"image_id": entry["id"]}, {"instances": _instances(*parts)}


@pytest.fixture
def register(tmp_path):
    """Function: register a data set; returns the path of its file."""

    def register_dataset(dataset):
        file = tmp_path / "truth.json"
        file.write_text(json.dumps(dataset))
        ids = {entry["id"]: label for label, entry in enumerate(dataset["categories"])}
        MetadataCatalog.get(NAME).set(
            json_file=str(file),
            thing_classes=[entry["name"] for entry in dataset["categories"]],
            thing_dataset_id_to_contiguous_id=ids,
        )
        return file

    yield register_dataset
    MetadataCatalog.pop(NAME, None)


def _run(evaluator, pairs):
    evaluator.reset()
    for image, output in pairs:
        evaluator.process([image], [output])
    return evaluator.evaluate()


def _scores(kind, pairs, folder, limit):
    """Results, and the predictions that were written."""
    results = _run(kind(NAME, output_dir=str(folder), max_dets_per_image=limit), pairs)
    return results, json.loads((folder / kind.predictions_file).read_text())


def _without(results, key):
    return [{k: v for k, v in one.items() if k != key} for one in results]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [None, 20])
def test_equals_pycocotools(register, tmp_path, capsys, seed, limit):
    dataset = _truth(images=6, classes=4, federated=False, seed=seed)
    file = register(dataset)
    pairs = list(_predict(dataset, extra=250, seed=seed))
    results, found = _scores(CocoEvaluator, pairs, tmp_path / "out", limit)
    assert len(found) == sum(len(output["instances"]) for _, output in pairs)
    assert any(annotation["iscrowd"] for annotation in dataset["annotations"])
    assert len({one["score"] for one in found}) < len(found) / 2, "there should be ties"
    assert results.keys() == {"bbox", "segm"}
    for task in results:
        truth = COCO(str(file))
        predicted = _without(found, "segmentation" if task == "bbox" else "bbox")
        official = COCOeval(truth, truth.loadRes(predicted), task)
        official.params.maxDets = [1, 10, limit or 100]
        official.evaluate()
        official.accumulate()
        precision = official.eval["precision"][..., -1]
        expected = [precision[:, :, :, 0], precision[0, :, :, 0], precision[5, :, :, 0]]
        expected += [precision[:, :, :, area] for area in (1, 2, 3)]
        expected += [precision[:, :, label, 0] for label in range(4)]
        names = [*COCO_METRICS, *(f"AP-c{label}" for label in range(4))]
        assert list(results[task]) == names
        for name, values in zip(names, expected, strict=True):
            mean = 100 * values[values > -1].mean()
            assert results[task][name] == pytest.approx(mean, abs=1e-11), (task, name)
            assert 0 < mean < 100
        if limit is None:
            official.summarize()
            assert results[task]["AP"] == pytest.approx(100 * official.stats[0], abs=1e-11)
    capsys.readouterr()  # pycocotools prints


@pytest.mark.parametrize(("seed", "limit"), [(0, 300), (1, 1000)])
def test_equals_the_lvis_package(register, tmp_path, monkeypatch, seed, limit):
    monkeypatch.setattr(np, "float", float, raising=False)  # gone since numpy 1.24, lvis uses it
    dataset = _truth(images=8, classes=9, federated=True, seed=seed)
    file = register(dataset)
    pairs = list(_predict(dataset, extra=1200, seed=seed))
    results, found = _scores(LvisEvaluator, pairs, tmp_path / "out", limit)
    assert max(len(output["instances"]) for _, output in pairs) > 1000
    judged = {entry["id"]: set(entry["neg_category_ids"]) for entry in dataset["images"]}
    assert any(entry["not_exhaustive_category_ids"] for entry in dataset["images"])
    for annotation in dataset["annotations"]:
        judged[annotation["image_id"]].add(annotation["category_id"])
    dropped = sum(one["category_id"] not in judged[one["image_id"]] for one in found)
    assert dropped > 20
    for task in ("bbox", "segm"):
        truth = LVIS(str(file))
        predicted = _without(found, "segmentation" if task == "bbox" else "bbox")
        submission = tmp_path / f"{task}.json"
        submission.write_text(json.dumps(predicted))
        official = LVISEval(truth, LVISResults(truth, str(submission), max_dets=limit), task)
        official.run()
        assert list(results[task]) == LVIS_METRICS
        for name in LVIS_METRICS:
            expected = 100 * official.get_results()[name]
            assert results[task][name] == pytest.approx(expected, abs=1e-11), (task, name)
            assert 0 < expected < 100


@pytest.mark.parametrize("federated", [False, True])
@pytest.mark.parametrize(("more", "tasks"), [(0, ["boundary"]), (2**60, ["bbox", "segm"])])
def test_ids_of_any_size(register, federated, more, tasks):
    """Of objects from 0, of images beyond what a float holds."""
    dataset = _truth(images=4, classes=3, federated=federated, seed=0)
    style = LvisEvaluator if federated else CocoEvaluator
    register(dataset)
    expected = _run(style(NAME, tasks), _predict(dataset, extra=120, seed=0))
    for number, annotation in enumerate(dataset["annotations"]):
        annotation |= {"id": number, "image_id": annotation["image_id"] + more}
    for image in dataset["images"]:
        image["id"] += more
    register(dataset)
    results = _run(style(NAME, tasks), _predict(dataset, extra=120, seed=0))
    for task, scores in expected.items():
        assert results[task] == pytest.approx(scores, rel=0, abs=1e-11, nan_ok=True), task


def _box_iou(a, b):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a["bbox"], b["bbox"]
    width = max(0, min(ax + aw, bx + bw) - max(ax, bx))
    height = max(0, min(ay + ah, by + bh) - max(ay, by))
    return width * height / (aw * ah + bw * bh - width * height)


def _average_precision(dataset, found, iou, limit):
    """AP by its definition, one object at a time, for data without crowds.

    Of each class the `limit` best in the entire set count; LVIS's rules where images have them.
    """
    images = {entry["id"]: entry for entry in dataset["images"]}
    federated = "neg_category_ids" in dataset["images"][0]
    scores = []
    for category in (entry["id"] for entry in dataset["categories"]):
        truth = defaultdict(list)
        for annotation in dataset["annotations"]:
            if annotation["category_id"] == category:
                truth[annotation["image_id"]].append(annotation)
        if not truth:
            continue
        of_class = sorted(
            (one for one in found if one["category_id"] == category),
            key=lambda one: one["score"],
            reverse=True,
        )[:limit]
        # equal scores: images in the order of their ids
        of_class.sort(key=lambda one: (-one["score"], one["image_id"]))
        overlaps = [[iou(one, other) for other in truth[one["image_id"]]] for one in of_class]
        number = sum(map(len, truth.values()))
        for threshold in np.linspace(0.5, 0.95, 10):
            taken, hits = set(), []
            for one, overlap in zip(of_class, overlaps, strict=True):
                free = [
                    (value, other["id"])
                    for value, other in zip(overlap, truth[one["image_id"]], strict=True)
                    if value >= threshold and other["id"] not in taken
                ]
                image = images[one["image_id"]]
                if free:
                    taken.add(max(free)[1])
                    hits.append(True)
                elif not federated or (
                    category not in image["not_exhaustive_category_ids"]
                    and (truth[image["id"]] or category in image["neg_category_ids"])
                ):
                    hits.append(False)
            right = np.cumsum(hits)
            precision = right / np.arange(1, len(hits) + 1)
            recall = right / number
            scores += [
                max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)
            ]
    return 100 * float(np.mean(scores))


def _plain(dataset):
    for annotation in dataset["annotations"]:
        annotation["iscrowd"] = 0
    return dataset


@pytest.mark.parametrize("federated", [False, True])
def test_boundary_ap(register, tmp_path, federated):
    dataset = _plain(_truth(images=4, classes=3, federated=federated, seed=5))
    register(dataset)
    style = LvisEvaluator if federated else CocoEvaluator
    # together with other tasks, which share the annotations
    evaluator = style(NAME, ["segm", "boundary", "bbox"], output_dir=str(tmp_path / "out"))
    results = _run(evaluator, _predict(dataset, extra=5, seed=5))
    alone = _run(style(NAME, ["boundary"]), _predict(dataset, extra=5, seed=5))
    assert results["boundary"] == pytest.approx(alone["boundary"], rel=0, nan_ok=True)
    assert 1 < results["boundary"]["AP"] < results["segm"]["AP"] - 1


@pytest.mark.parametrize("federated", [False, True])
@pytest.mark.parametrize("limit", [3, 15, 10_000])
def test_fixed_ap(register, tmp_path, monkeypatch, federated, limit):
    monkeypatch.setattr(evaluation, "FIXED_DETECTIONS_PER_CLASS", limit)
    dataset = _plain(_truth(images=5, classes=4, federated=federated, seed=6))
    register(dataset)
    style = LvisEvaluator if federated else CocoEvaluator
    tasks = ["bbox", "bbox-fixed"]
    evaluator = style(NAME, tasks, output_dir=str(tmp_path / "out"), max_dets_per_image=5)
    results = _run(evaluator, _predict(dataset, extra=80, seed=6))
    found = json.loads((tmp_path / "out" / style.predictions_file).read_text())
    expected = _average_precision(dataset, found, _box_iou, limit)
    assert results["bbox-fixed"]["AP"] == pytest.approx(expected, abs=1e-6)
    assert results["bbox"]["AP"] != results["bbox-fixed"]["AP"]


def test_nothing_found(register, tmp_path):
    dataset = _truth(images=2, classes=3, federated=True, seed=0)
    register(dataset)
    for style, metrics in ((CocoEvaluator, COCO_METRICS), (LvisEvaluator, LVIS_METRICS)):
        evaluator = style(NAME, output_dir=str(tmp_path))
        assert _run(evaluator, []) == {}
        results = _run(evaluator, [({"image_id": 10}, {"instances": _instances([], [], [])})])
        assert results.keys() == {"bbox", "segm"}
        assert all(list(scores) == metrics for scores in results.values())
        assert all(math.isnan(value) for scores in results.values() for value in scores.values())
        assert json.loads((tmp_path / style.predictions_file).read_text()) == []


def test_a_group_without_objects_is_nan(register, tmp_path):
    dataset = _truth(images=3, classes=4, federated=True, seed=2)
    for category in dataset["categories"]:
        category["frequency"] = "f"
    register(dataset)
    evaluator = LvisEvaluator(NAME, output_dir=str(tmp_path))
    results = _run(evaluator, _predict(dataset, extra=5, seed=2))
    assert math.isnan(results["bbox"]["APr"])
    first = dataset["images"][0]
    Image.new("RGB", (first["width"], first["height"])).save(tmp_path / "image.png")
    sections = detection_sections(
        truth=evaluator.labels(),
        predictions=tmp_path / evaluator.predictions_file,
        images={entry["id"]: tmp_path / "image.png" for entry in dataset["images"]},
        scores=results,
        folder=tmp_path,
    )
    meanings = {row.name: row.meaning for row in sections[0].rows}
    assert meanings["APr"].endswith("there are none in the data")
    (confusion,) = [section for section in sections if isinstance(section, Confusion)]
    assert confusion.counts.sum() >= len(dataset["annotations"])
    assert results["bbox"]["APf"] == results["bbox"]["AP"]


@pytest.mark.parametrize("style", [CocoEvaluator, LvisEvaluator])
def test_a_test_set_is_only_written(register, tmp_path, style):
    dataset = _truth(images=2, classes=3, federated=True, seed=0)
    pairs = list(_predict(dataset, extra=5, seed=0))
    del dataset["annotations"]
    register(dataset)
    evaluator = style(NAME, output_dir=str(tmp_path / "out"))
    assert _run(evaluator, pairs) == {}
    assert [path.name for path in (tmp_path / "out").iterdir()] == [style.predictions_file]
    assert len(json.loads((tmp_path / "out" / style.predictions_file).read_text())) > 5


# two processes; process 0 scores only once process 1 has returned and begun the next evaluation
TWO_PROCESSES = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_evaluation as helpers
from detectron2.data import MetadataCatalog
from detectron2.engine import launch
from detectron2.utils import comm
from eva_detection.evaluation import evaluators as evaluation

def main(folder):
    dataset = json.loads((folder / "truth.json").read_text())
    labels = {entry["id"]: label for label, entry in enumerate(dataset["categories"])}
    MetadataCatalog.get(helpers.NAME).set(
        json_file=str(folder / "truth.json"), thing_classes=[f"c{i}" for i in range(len(labels))],
        thing_dataset_id_to_contiguous_id=labels)
    pairs = list(helpers._predict(dataset, extra=60, seed=0))
    half = len(pairs) // 2
    mine = pairs[half:] if comm.get_rank() else pairs[:half]
    evaluator = evaluation.CocoEvaluator(helpers.NAME, output_dir=str(folder / "out"))
    score = evaluation.score
    for number in range(2):
        def slow(*found, **more):
            deadline = time.monotonic() + 60
            while not (folder / f"begun{number}").exists():
                assert time.monotonic() < deadline, "process 1 is held"
                time.sleep(0.01)
            return score(*found, **more)
        evaluation.score = slow
        evaluator.reset()
        for image, output in mine:
            evaluator.process([image], [output])
        results = evaluator.evaluate()
        if comm.get_rank() == 0:
            (folder / f"scores{number}.json").write_text(json.dumps(results))
        else:
            assert results == {}
            (folder / f"begun{number}").touch()

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(Path(sys.argv[2]),))
"""


def test_two_processes(register, start, finish, tmp_path):
    dataset = _truth(images=5, classes=3, federated=False, seed=0)
    register(dataset)
    alone = tmp_path / "alone"
    expected = _run(CocoEvaluator(NAME, output_dir=str(alone)), _predict(dataset, extra=60, seed=0))
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    finish(start(str(script), str(TESTS), str(tmp_path)))
    for number in range(2):
        assert json.loads((tmp_path / f"scores{number}.json").read_text()) == expected
    name = "coco_instances_results.json"
    assert (tmp_path / "out" / name).read_bytes() == (alone / name).read_bytes()

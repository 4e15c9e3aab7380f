"""`eva batch`: every form of input, every task, what cannot be read, and what goes on."""

import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from eva_command.batch import index, main as batch
from eva_contrastive.commands import demo
from eva_contrastive.inference.features import ClipFeatures
from eva_runs.batch import read_features

NUMBER = 20
RUN = ("--device", "cpu", "--precision", "fp32", "--processes", "0", "--shard-size", "8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folder of images, each with a caption beside it."""
    folder, generator = tmp_path_factory.mktemp("batch") / "photos", np.random.default_rng(0)
    for number in range(NUMBER):
        file = folder / ("below" if number > 14 else ".") / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(file)
        file.with_suffix(".txt").write_text(f"a thing of {number}\n")
    return folder


@pytest.fixture(scope="module")
def inputs(photos):
    """Form -> INPUT with the images of the folder, in its order."""
    import fsspec

    place, files = photos.parent, sorted(photos.glob("*.png")) + sorted(photos.glob("*/*.png"))
    texts = [file.with_suffix(".txt").read_text().strip() for file in files]
    (place / "list.txt").write_text("".join(f"{file.relative_to(place)}\n" for file in files))
    cells = {
        "bytes": [file.read_bytes() for file in files],
        "struct": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "paths": [str(file.relative_to(place)) for file in files],
    }
    for name, images in cells.items():
        captions = [[one, "another"] for one in texts] if name == "struct" else texts
        table = pa.table({"key": texts, "image": images, "caption": captions})
        pq.write_table(table, place / f"{name}.parquet", row_group_size=7)
    rows = [*zip(cells["paths"], texts, strict=True)]
    lines = "".join(f"{path},{text}\n" for path, text in rows)
    (place / "pairs.csv").write_text(f"path,caption\n{lines}")
    (place / "pairs.json").write_text(json.dumps([{"image": a, "caption": b} for a, b in rows]))
    (place / "labels.csv").write_text(f"file,label\n{lines}")
    for shard, start in enumerate((0, 12)):
        with tarfile.open(place / f"{shard}.tar", "w") as tar:
            for file in files[start : start + 12]:
                tar.add(file, file.name)
                tar.add(file.with_suffix(".txt"), file.with_suffix(".txt").name)
        fsspec.filesystem("memory").put(str(place / f"{shard}.tar"), f"/shards/{shard}.tar")
    names = (
        "list.txt",
        "pairs.csv",
        "pairs.json",
        "labels.csv",
        *(f"{name}.parquet" for name in cells),
        "{0..1}.tar",
    )
    here = {name: str(place / name) for name in names}
    return {"folder": str(photos), **here, "address": "memory://shards/*.tar"}


@pytest.fixture(scope="module")
def clip(clip_weights):
    return ClipFeatures.from_weights(clip_weights, device="cpu", precision="fp32")


@pytest.fixture
def compute(clip_weights, tmp_path):
    """Function: run a task; gives its output."""

    def run(task, *words, output="out", code=0):
        options = ("--weights", clip_weights, "--output", tmp_path / output, *RUN)
        assert batch([task, *map(str, (*words, *options))]) == code
        return tmp_path / output

    return run


def rows_of(folder):
    assert batch(["merge", str(folder), "--output", str(folder / "merged.parquet")]) == 0
    return pq.read_table(folder / "merged.parquet")


FORMS = ("folder", "list.txt", "labels.csv", "pairs.csv", "pairs.json", "bytes.parquet",
         "struct.parquet", "paths.parquet", "{0..1}.tar", "address")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input_gives_the_scores_of_its_images_and_captions(
    compute, inputs, photos, clip, form
):
    if form in ("list.txt", "labels.csv"):  # which have no captions
        names, found = read_features(compute("features", inputs[form], "--kind", "embedding"))
        assert names == [str(file) for file in sorted(photos.glob("*.png"))] + [
            str(file) for file in sorted(photos.glob("*/*.png"))
        ]
        expected = clip.images(names, normalize=False)
        return torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=1e-2)
    files = sorted(photos.glob("*.png")) + sorted(photos.glob("*/*.png"))
    texts = [f"a thing of {number}" for number in range(NUMBER)]
    table = rows_of(compute("caption-score", inputs[form]))
    assert table["caption"].to_pylist() == texts
    expected = (clip.images(files) * clip.texts(texts)).sum(-1)
    np.testing.assert_allclose(table["score"].to_numpy(), expected, atol=1e-5)
    return None


def test_features_of_texts_and_maps(compute, inputs, tmp_path, clip, refused):
    (tmp_path / "texts.txt").write_text("a cat\nein Häuschen\na cat\n")
    words = (tmp_path / "texts.txt", "--texts", "--store", "fp32")
    names, found = read_features(compute("features", *words))
    assert names == ["a cat", "ein Häuschen", "a cat"]
    torch.testing.assert_close(found, clip.texts(names, normalize=False))
    maps = compute("features", inputs["folder"], "--kind", "patches", output="maps")
    assert read_features(maps)[1].shape == (NUMBER, 128, 4, 4)
    for useless in (("--kind", "pooled"), ("--image-size", 64), ("--pooling", "cls")):
        with refused("has no use"):
            compute("features", *words, *useless, output="no")


def test_features_are_searched_by_sentences(compute, inputs, clip, clip_weights, tmp_path):
    """In an index or as they are, the scores are the cosines."""
    folder = compute("features", inputs["folder"], "--kind", "embedding", "--unit-length")
    names, features = read_features(folder)
    expected = (features.float() @ clip.texts("a red thing")[0]).numpy()
    assert index(["build", str(folder), "--output", str(tmp_path / "index")]) == 0
    for place in (folder, tmp_path / "index"):
        output = tmp_path / f"found_{place.name}"
        words = ["search", place, "--weights", clip_weights, "--text", "a red thing", "--top", 5]
        demo([*map(str, words), "--output", str(output), "--device", "cpu", "--precision", "fp32"])
        (query,) = json.loads((output / "results.json").read_text())["queries"]
        best = np.argsort(-expected)[:5]
        assert [hit["file"] for hit in query["hits"]] == [names[at] for at in best]
        assert np.allclose([hit["score"] for hit in query["hits"]], expected[best], atol=1e-3)


def test_zero_shot_scores_are_those_of_the_sentences(compute, inputs, clip):
    words = ("--classes", "cat", "dog", "--templates", "a {}.", "the {}", "--top", 1)
    table = rows_of(compute("zero-shot", inputs["bytes.parquet"], *words))
    means = torch.stack([clip.texts([f"a {x}.", f"the {x}"]).mean(0) for x in ("cat", "dog")])
    images = clip.images(inputs["folder"] + "/*.png")
    found = clip.probabilities(images, torch.nn.functional.normalize(means, dim=-1))
    scores = [one[0] for one in table["probabilities"].to_pylist()]
    np.testing.assert_allclose(scores[:15], found.max(-1).values, atol=1e-5)
    assert table["classes"].to_pylist()[0] == [("cat", "dog")[int(found[0].argmax())]]


def test_what_cannot_be_read_is_listed_and_tried_again(compute, photos, tmp_path, capsys, refused):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, file in enumerate(sorted(photos.glob("*.png"))):
        (folder / file.name).write_bytes(b"torn" if number in (3, 9) else file.read_bytes())
    with refused("--max-errors is 1"):
        compute("features", folder, "--max-errors", 1)
    output = compute("features", folder)
    files = sorted((output / "parts").glob("*.errors.jsonl"))
    listed = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [one["name"] for one in listed] == [str(folder / f"0{number}.png") for number in (3, 9)]
    assert all("decoded" in one["reason"] for one in listed)
    assert len(read_features(output)[0]) == 13
    for number in (3, 9):
        (folder / f"0{number}.png").write_bytes((photos / f"0{number}.png").read_bytes())
    assert batch(["retry", str(output), "--device", "cpu", "--processes", "0"]) == 0
    assert batch(["status", str(output)]) == 0
    *_, held, then = capsys.readouterr().out.splitlines()
    assert "15 results in 2 of 2 shards" in held
    assert then.split()[:4] == ["next", "eva", "batch", "merge"]
    names, whole = read_features(output)
    assert names == [str(folder / f"{number:02}.png") for number in range(15)]
    before = {file: file.stat().st_mtime_ns for file in sorted((output / "parts").iterdir())}
    kept, lost, *_ = before
    lost.unlink()
    with pytest.raises(ValueError, match=r"1.*2"):
        read_features(output)
    compute("features", folder)
    assert torch.equal(read_features(output)[1], whole)
    assert kept.stat().st_mtime_ns == before[kept]


def test_parts_of_the_shards_and_of_the_records(compute, inputs, refused, tmp_path):
    first = compute("features", inputs["folder"], "--shards", "0-1")
    with pytest.raises(ValueError, match=r"1.*3"):
        read_features(first)
    assert compute("features", inputs["folder"], "--shards", "2-7") == first
    names, whole = read_features(first)
    assert len(names) == NUMBER
    few = compute("features", inputs["{0..1}.tar"], "--limit", 15, output="few")
    assert torch.equal(read_features(few)[1], whole[:15])
    rest = tmp_path / "rest.parquet"  # which nobody opens
    rest.touch()
    compute("features", inputs["bytes.parquet"], rest, "--limit", NUMBER, output="first")
    with refused("no shard 5: they are 0 to 2"):
        compute("features", inputs["folder"], "--shards", "5-7")
    for other in ((inputs["folder"], "--limit", 3), (inputs["list.txt"],),
                  (inputs["folder"], "--store", "fp32"),
                  (inputs["folder"], "--batch-size", 7)):  # fmt: skip
        with refused(
            r"other settings \([^:]*(limit|input|store|batch_size)[^:]*\): choose another folder"
        ):
            compute("features", *other)
    leftovers = [first / f".{stem}.writing-0123456789ab.parquet" for stem in ("merged", "other")]
    for file in leftovers:  # of a merge that was killed, and of other work
        file.touch()
    rows_of(first)
    assert [file.exists() for file in leftovers] == [False, True]
    with refused("merged.parquet"):
        rows_of(first)
    with refused("holds no objects"):
        batch(["merge", str(first), "--to", "coco", "--output", str(tmp_path / "dataset")])
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    "name",
    [
        "detection",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("mmdetection", "segmentation")),
    ],
)
def test_objects_and_pixels_are_of_all_images(run, finished, demo, tmp_path, refused, name):
    import pycocotools.mask as mask_api

    images = sorted((demo("coco") / "coco/val").iterdir())
    task = "segment" if name == "segmentation" else "detect"
    words = ("--weights", finished(name), "--output", tmp_path / "out", "--score-threshold", 0)
    words = (*(words[:4] if task == "segment" else words), "--device", "cpu", "--processes", 0)
    run("eva", "batch", task, images[0].parent, *words)
    rows = rows_of(tmp_path / "out").to_pylist()
    assert [row["name"] for row in rows] == list(map(str, images))
    for row, file in zip(rows, images, strict=True):
        with Image.open(file) as image:
            assert (row["width"], row["height"]) == image.size
        if task == "segment":  # each pixel has one class
            size = [row["height"], row["width"]]
            codes = [{"size": size, "counts": one["segmentation"]} for one in row["segments"]]
            assert (mask_api.decode(codes).sum(-1) == 1).all()
    if task == "detect":
        merged = tmp_path / "merged.json"
        assert batch(["merge", str(tmp_path / "out"), "--output", str(merged)]) == 0
        content = json.loads(merged.read_text())
        assert [one["file_name"] for one in content["images"]] == list(map(str, images))
        objects = [one for row in rows for one in row["objects"]]
        assert len(content["annotations"]) == len(objects) > 0
        for ours, one in zip(objects, content["annotations"], strict=True):
            same = ("bbox", "score", "category_id")
            assert [one[key] for key in same] == [ours[key] for key in same]
            assert one["segmentation"]["counts"] == ours["segmentation"]
        merge = [
            "merge",
            str(tmp_path / "out"),
            "--output",
            str(tmp_path / "data"),
            "--to",
            "fiftyone",
        ]
        assert batch(merge) == 0
        data = json.loads((tmp_path / "data/fiftyone/labels.json").read_text())
        assert data["annotations"] == content["annotations"]
        for one, file in zip(data["images"], images, strict=True):
            assert one["file_name"] == str(file).strip("/").replace("/", "__")
            assert (tmp_path / "data/fiftyone/data" / one["file_name"]).samefile(file)
        with refused("data/fiftyone"):
            batch(merge)
        assert batch([*merge, "--overwrite"]) == 0
        table = pa.table({"image": [file.read_bytes() for file in images]})
        pq.write_table(table, tmp_path / "rows.parquet")
        words = (*words[:3], tmp_path / "rows", *words[4:])
        run("eva", "batch", task, tmp_path / "rows.parquet", *words)
        merge[1:] = [str(tmp_path / "rows"), "--to", "yolo", "--output", str(tmp_path / "data")]
        assert batch(merge) == 0
        suffixes = [one.suffix for one in (tmp_path / "data/yolo").rglob("*.*") if one.is_file()]
        assert sorted(suffixes) == [".jpeg"] * 4 + [".txt"] * 4 + [".yaml"]


def test_a_missing_package_of_an_address_is_named(compute, monkeypatch, refused):
    def refuse(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.url_to_fs", refuse)
    with refused("s3fs"):
        compute("features", "s3://bucket/{1..2}.tar")


def test_a_batch_without_a_result_fails_and_is_not_merged(compute, tmp_path, refused, capsys):
    (tmp_path / "table.csv").write_text("path,caption\nnone.png,a thing\n")
    output = compute("caption-score", tmp_path / "table.csv", code=1)
    assert str(tmp_path / "none.png") in capsys.readouterr().out
    with refused(str(output)):
        batch(["merge", str(output), "--output", str(tmp_path / "merged.parquet")])
    assert not (tmp_path / "merged.parquet").exists()


def test_a_wrong_folder_is_named(tmp_path, refused):
    with refused("manifest.json"):
        batch(["status", str(tmp_path)])


def test_what_is_repeated_has_the_bytes_of_the_first_time(clip_weights, tmp_path, capsys):
    """Groups of rows follow the batches."""
    (tmp_path / "texts.txt").write_text("".join(f"thing {number}\n" for number in range(1100)))
    output, alone = tmp_path / "out", ("--device", "cpu", "--processes", "0")
    words = ("features", tmp_path / "texts.txt", "--texts", "--weights", clip_weights, *alone)
    words = [*map(str, (*words, "--batch-size", 600, "--shard-size", 1100, "--output", output))]
    with pytest.raises(SystemExit):
        batch([*words, "--shards", "20-10"])
    assert "20-10" in capsys.readouterr().err
    assert batch(words) == 0
    part = output / "parts/part-000000.parquet"
    before = part.read_bytes()
    part.unlink()
    assert batch(["retry", str(output), *alone]) == 0
    assert part.read_bytes() == before

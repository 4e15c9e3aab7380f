"""Small data that several folders of tests share: fixtures, which `conftest.py` registers."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

OBJECTNET = {
    "objects": {"chair_d": "Chair", "plate": "Plate", "lettuce": "Lettuce", "clock_a": "Alarm"},
    "classes": {
        "Chair": "folding chair; barber chair; rocking chair, rocker",
        "Plate": "plate",
        "Alarm": "analog clock",
    },
    # the lines are not in the order of the labels
    "lines": ["analog clock", "barber chair", "plate", "rocking chair, rocker", "folding chair"],
    "line_of_label": {"409": 0, "423": 1, "559": 4, "765": 3, "923": 2},
}


@pytest.fixture(scope="session")
def photograph():
    """An astronaut, (512, 512, 3) uint8."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def write_video():
    """Function: write a video whose frames become lighter, at given times in tenths of a second."""
    import av

    def write(file, frames, pts, size=(48, 64)):
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            for index in range(frames):
                rgb = np.full((*size, 3), 10 + 40 * index, np.uint8)
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts = pts[index]
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


@pytest.fixture(scope="session")
def write_tar():
    """Function: write a tar file of (name, content); returns its path."""

    def write(file, members, **options):
        with tarfile.open(file, "w", **options) as tar:
            for name, content in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return file

    return write


@pytest.fixture(scope="session")
def write_picture():
    """Function: write a grey picture with a number, and the folders that lead to it."""

    def write(path, number=0, size=(10, 9)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number,) * 3).save(path, "png")  # whatever its extension

    return write


@pytest.fixture
def make_set(tmp_path, write_picture):
    """Function: class folders, and in some of them pictures: {folder/name: number}."""

    def make(name, folders, pictures):
        for folder in folders:
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
        for path, number in pictures.items():
            write_picture(tmp_path / name / path, number)
        return tmp_path / name

    return make


@pytest.fixture
def make_objectnet(make_set):
    """Function: ObjectNet with its four mapping files in the official formats."""

    def make(pictures, **changes):
        mapping = OBJECTNET | changes
        folder = make_set(
            "objectnet", ["mappings"], {f"images/{k}": n for k, n in pictures.items()}
        )
        files = {
            "folder_to_objectnet_label.json": json.dumps(mapping["objects"]),
            "objectnet_to_imagenet_1k.json": json.dumps(mapping["classes"]),
            "pytorch_to_imagenet_2012_id.json": json.dumps(mapping["line_of_label"]),
            "imagenet_to_label_2012_v2": "\n".join(mapping["lines"]) + "\n",
        }
        for name, text in files.items():
            (folder / "mappings" / name).write_text(text)
        return folder

    return make


@pytest.fixture
def write_coco(tmp_path):
    """Function: a COCO file of these annotations and noise pictures of 128 x 96 px."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()

    def write(annotations, *, name="train", count=4, **changes):
        entries = []
        for key in range(1, count + 1):
            file = pictures / f"{key}.png"
            if not file.exists():
                Image.effect_noise((128, 96), 60).convert("RGB").save(file)
            entries.append({"id": key, "file_name": file.name, "width": 128, "height": 96})
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        data = {"images": entries, "categories": categories, "annotations": annotations}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(data | changes))
        return path

    write.pictures = pictures
    return write

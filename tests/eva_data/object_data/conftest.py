"""Small sets of pictures with labels in YOLO's and VOC's form."""

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 40, 20


@pytest.fixture
def save():
    """Function: write a picture of 40 x 20 pixels, with any EXIF orientation."""

    def save_picture(file, *, orientation=1):
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(file, exif=exif)

    return save_picture


@pytest.fixture
def yolo(tmp_path, save):
    """Function: a set of YOLO with a label file for each text, all of them for training."""

    def write(*labels, yaml="names: [cat, dog]\ntrain: images/train\n", **files):
        root = tmp_path / "yolo"
        for name in ("images", "labels"):
            (root / name / "train").mkdir(parents=True, exist_ok=True)
        named = {f"{number}": text for number, text in enumerate(labels)} | files
        for name, text in named.items():
            save(root / "images/train" / f"{name}.jpg")
            if text is not None:
                content = text if isinstance(text, bytes) else text.encode()
                label = root / "labels/train" / f"{name}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_bytes(content)
        (root / "data.yaml").write_text(yaml)
        return root

    return write


OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin>"
    "<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
)
BOX = {"name": "cat", "difficult": 0, "xmin": 1, "ymin": 1, "xmax": 40, "ymax": 20}


@pytest.fixture
def voc(tmp_path, save):
    """Function: a folder of VOC with a file for each list of objects or text."""

    def write(*files, lists=None, size=(WIDTH, HEIGHT)):
        root = tmp_path / "voc"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(files):
            save(root / "JPEGImages" / f"{number}.jpg")
            if not isinstance(content, str):
                inside = "\n".join(OBJECT.format(**BOX | one) for one in content)
                content = (
                    f"<annotation>\n<filename>{number}.jpg</filename><size><width>{size[0]}</width>"
                    f"<height>{size[1]}</height></size>\n{inside}\n</annotation>"
                )
            (root / "Annotations" / f"{number}.xml").write_text(content)
        for name, text in (lists or {}).items():
            (root / "ImageSets/Main" / f"{name}.txt").write_text(text)
        return root

    return write


@pytest.fixture
def read():
    """Function: a part of a set as lists of COCO."""
    from eva_data.object_data.as_coco import as_coco
    from eva_data.object_data.forms import open_data

    def read_part(path, part="train", *, scored=False, **options):
        source = open_data(path)
        lists = as_coco(source, source.parts[part], scored=scored, **options)
        return lists._replace(annotations=list(lists.annotations))

    return read_part

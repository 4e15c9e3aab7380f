"""Small pictures, shards written member by member, and a function that opens what is in them."""

import io

import pytest
from PIL import Image


def encoded(number=0, size=(12, 10), kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, (number, 0, 255 - number)).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def png():
    """Function: content of a picture whose colour is a number."""
    return encoded


@pytest.fixture
def pictures(tmp_path):
    """Folder of the pictures 0.png to 9.png, the red of which is their number."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.png").write_bytes(encoded(number))
    return folder


@pytest.fixture
def listed():
    """Function: name of the picture and captions of each pair."""

    def read(pairs):
        return [
            (pairs.sample_id(index).replace(":", "/").split("/")[-1], *pairs.captions(index))
            for index in range(len(pairs))
        ]

    return read


@pytest.fixture
def left_out():
    """Function: what makes no pair, by kind."""
    return lambda pairs: {one["kind"]: one["ids"] for one in pairs.left_out.as_json()}

"""A small EVA-CLIP with the debug backbone, and photographs and a video to look at."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eva_contrastive.inference.features import ClipFeatures
from eva_data.video.streams import Frame, VideoWriter

ORIENTATION = 274  # EXIF


@pytest.fixture(scope="session")
def weights(clip_weights):
    return clip_weights


@pytest.fixture(scope="session")
def clip(weights):
    return ClipFeatures.from_weights(weights, device="cpu", batch_size=3)


@pytest.fixture(scope="session")
def photographs():
    """Name -> (h, w, 3)."""
    from skimage import data

    found = {"cat": data.chelsea(), "astronaut": data.astronaut(), "rocket": data.rocket()}
    return {name: np.asarray(Image.fromarray(one).reduce(3)) for name, one in found.items()}


@pytest.fixture(scope="session")
def film(tmp_path_factory, photographs):
    """Two seconds of a rocket and then two of a cat, 12 frames a second."""
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    with VideoWriter(file) as writer:
        for index in range(48):
            picture = Image.fromarray(photographs["rocket" if index < 24 else "cat"])
            frame = np.asarray(picture.resize((96, 64)))
            writer.add(frame, Frame(frame, index, Fraction(1, 12), Fraction(12)))
    return file


@pytest.fixture(scope="session")
def original_media(tmp_path_factory, photographs, film):
    folder = tmp_path_factory.mktemp("original") / "media"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(photographs["cat"]).save(folder / "deep" / "cat.png")
    Image.fromarray(photographs["rocket"]).save(folder / "rocket.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = np.rot90(photographs["astronaut"])  # which the orientation turns back
    Image.fromarray(turned.copy()).save(folder / "astronaut.png", exif=exif)
    (folder / "film.mp4").write_bytes(film.read_bytes())
    return folder


@pytest.fixture
def media(tmp_path, original_media):
    """A folder with a film and three pictures, one stored sideways and one in a subfolder."""
    return Path(shutil.copytree(original_media, tmp_path / "media"))

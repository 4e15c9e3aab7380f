"""A small model with random weights, pictures with captions, and a program of processes."""

import numpy as np
import pytest
import torch
from PIL import Image

from eva_contrastive.model.eva_clip import build_eva_clip
from eva_data.images import UnreadableImageError
from eva_engine.checkpoints.files import save_weights

SIZES = {"embed_dim": 16, "img_size": 32, "depth": 1}
TEXT = {"depth": 1, "width": 32}
WORDS = ("red", "green", "blue", "small", "large", "dark", "bright", "old", "new", "round")


class Pairs:
    """Pictures of noise with captions in memory, as `eva_data.captions` has them."""

    def __init__(self, captions, seed=0, torn=(), mute=()):
        self.torn, self.mute = torn, mute
        self._captions = [tuple(own) for own in captions]
        chance = np.random.default_rng(seed)
        self._pixels = chance.integers(0, 256, (len(captions), 5, 4, 3), dtype=np.uint8)

    def __len__(self):
        return len(self._captions)

    def sample_id(self, index):
        return f"pair {index}"

    def captions(self, index):
        if index in self.mute:
            raise OSError(f"the captions of pair {index} are not text")
        return self._captions[index]

    def image(self, index):
        if index in self.torn:
            raise UnreadableImageError(f"pair {index} is torn")
        return Image.fromarray(self._pixels[index]).resize((40, 48), Image.Resampling.BICUBIC)


def small_clip(seed=3, **more):
    torch.manual_seed(seed)
    model = build_eva_clip("eva_debug", "debug", text_overrides=TEXT, **SIZES | more)
    torch.nn.init.normal_(model.visual.head.weight, std=0.5)
    torch.nn.init.normal_(model.visual.pos_embed, std=0.5)
    return model.eval()


@pytest.fixture(scope="session")
def clip():
    """A model of 32 px and 16 values a feature."""
    return small_clip()


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of a run's weights, 32 px and 16 values a feature, which notes its training."""
    torch.manual_seed(3)
    model = build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32).eval()
    torch.nn.init.normal_(model.visual.head.weight, std=0.5)
    torch.nn.init.normal_(model.visual.pos_embed, std=0.5)
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(model.state_dict(), file, {"data": {"mean": [0.4, 0.5, 0.6], "std": [0.3] * 3}})
    return file


@pytest.fixture(scope="session")
def folders(tmp_path_factory, make_pairs):
    """11 pictures in the class folders `dark_thing`, `light` and `tiny`."""
    folder = tmp_path_factory.mktemp("classes")
    pictures = make_pairs([["a"]] * 11, seed=1)
    for index in range(11):
        name = ("dark_thing", "light", "tiny")[index % 3]
        (folder / name).mkdir(exist_ok=True)
        pictures.image(index).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def captions(tmp_path_factory, pairs):
    """The pairs as a table and its pictures."""
    folder = tmp_path_factory.mktemp("captions")
    lines = ["image,caption"]
    for index in range(len(pairs)):
        pairs.image(index).save(folder / f"{index}.png")
        lines += [f"{index}.png,{text}" for text in pairs.captions(index)]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


@pytest.fixture(scope="session")
def make_pairs():
    """Function: pictures of noise with these captions."""
    return Pairs


@pytest.fixture(scope="session")
def pairs():
    """11 pictures with one to three captions."""
    return Pairs(
        [[f"a {WORDS[(3 * i + j) % 10]} {WORDS[j]} thing {i}" for j in range(1 + i % 3)]
         for i in range(11)]
    )  # fmt: skip


@pytest.fixture
def launch(launcher, tmp_path):
    """Function: run the command in processes; their exit codes, and what each of them wrote."""

    def run(*arguments, ranks, **more):
        log = tmp_path / "log_of_rank"
        ended = launcher(["evaluate", *map(str, arguments)], ranks=ranks, log=log, **more)
        return ended.codes, ended.texts

    return run

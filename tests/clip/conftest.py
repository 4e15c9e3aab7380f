"""Small models of two towers, their files under all names, and data for them."""

import io
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import is_model, register_model
from timm.models.eva import Eva

from eva_backbone import variants
from eva_contrastive.config import TEXT_VARIANTS, TextVariant
from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.model.eva_clip import (
    EvaClip,
    TextTower,
    VisionTower,
    build_eva_clip,
    tokenize,
)
from eva_data.video.streams import Frame, VideoWriter
from eva_engine.checkpoints.files import save_weights

HERE = Path(__file__).parent
ORIENTATION = 274  # EXIF
WORDS = ("red", "green", "blue", "small", "large", "dark", "bright", "old", "new", "round")
VISION = {
    "img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48
}  # fmt: skip
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="session")
def make_clip(randomise):
    """Function: a small CLIP, random everywhere, in eval mode."""

    def make(*, output_dim=16, sigmoid=False, text=None, **vision):
        visual = VisionTower(output_dim=output_dim, **VISION | vision)
        words = TextTower(output_dim=output_dim, sigmoid=sigmoid, **TEXT | (text or {}))
        return randomise(EvaClip(visual, words)).eval()

    return make


@pytest.fixture
def small_sizes(tmp_path, monkeypatch):
    """$EVA_WEIGHTS, and EVA-CLIP-g so small that its files fit into it."""
    vision = replace(
        variants.VARIANTS["eva_g_patch14"],
        img_size=28, embed_dim=44, depth=2, num_heads=2, mlp_dim=48,
    )  # fmt: skip
    monkeypatch.setitem(variants.VARIANTS, "eva_g_patch14", vision)
    text = TextVariant(24, 2, 2, context_length=16)
    monkeypatch.setitem(TEXT_VARIANTS, "clip_l", text)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def official_clip(small_sizes, official, randomise):
    """A small EVA-CLIP, and the official file `eva_clip_psz14.pt` of it, in half precision."""
    model = randomise(build_eva_clip(embed_dim=16)).half().float().eval()
    state = {name: value.half() for name, value in model.state_dict().items()}
    state["text.logit_scale"] = state["text.logit_scale"].reshape(())
    torch.save(state, small_sizes / "eva_clip_psz14.pt")
    official(small_sizes / "eva_clip_psz14.pt")
    return model


COLOURS = {"red": (200, 40, 40), "green": (40, 180, 40), "blue": (40, 60, 200), "white": (240,) * 3}
RECIPE = """
from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ContrastiveConfig(
    model=ModelConfig(
        variant="eva_debug", image_size=16, text="debug", embed_dim=16, drop_path_rate=0.1,
        patch_dropout=0.25, init_checkpoint="eva_debug",
    ),
    data=DataConfig(
        train="{data}/pairs.tar", val="{data}/pairs.tar", zero_shot="{data}/classes",
        templates=("a {{}} picture",),
    ),
    vision=TowerConfig(lr=3e-4, layer_decay=0.9),
    text=TowerConfig(lr=3e-4),
    optimizer=OptimizerConfig(lr=3e-4, warmup_epochs=1, betas=(0.9, 0.98), clip_grad=1.0),
    run=RunConfig(
        output="unused", resume=True, epochs=3, batch_size=4, accumulate=2, workers=0,
        tensorboard=False, ema_decay=0.9, checkpoint_every=2, log_every=1, device="cpu",
    ),
)
"""


def _picture(colour, chance):
    pixels = chance.normal(colour, 12, (20, 24, 3)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory, write_tar):
    """A folder with `pairs.tar`, 32 pictures of four colours and captions, and `classes/`."""
    folder = tmp_path_factory.mktemp("pairs")
    chance = np.random.default_rng(0)
    samples = []
    for number in range(32):
        name = [*COLOURS][number % 4]
        content = _picture(COLOURS[name], chance)
        samples.append((f"{number:04}.png", content))
        samples.append((f"{number:04}.txt", f"a {name} picture".encode()))
        place = folder / "classes" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    write_tar(folder / "pairs.tar", samples)
    return folder


@pytest.fixture(scope="session")
def launcher(start_launcher):
    """A process that has imported `program.py` and forks for each run."""
    with start_launcher(Path(__file__).parent) as submit:
        yield submit


@pytest.fixture
def recipe(pairs, tmp_path, monkeypatch):
    """The file of a recipe on `pairs`, with all that is random; its text tower is narrow."""
    monkeypatch.setitem(TEXT_VARIANTS, "debug", TextVariant(16, 2, 1, context_length=32))
    file = tmp_path / "recipe.py"
    file.write_text(RECIPE.format(data=pairs))
    return file


# Evaluation


class NoisePairs:
    """Pictures of noise with captions in memory, as `eva_data.captions` has them."""

    def __init__(self, captions, seed=0):
        self._captions = [tuple(own) for own in captions]
        chance = np.random.default_rng(seed)
        self._pixels = chance.integers(0, 256, (len(captions), 5, 4, 3), dtype=np.uint8)

    def __len__(self):
        return len(self._captions)

    def sample_id(self, index):
        return f"pair {index}"

    def captions(self, index):
        return self._captions[index]

    def image(self, index):
        return Image.fromarray(self._pixels[index]).resize((40, 48), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def small_model(make_clip):
    """A model of 32 px and 16 values a feature."""
    return make_clip(img_size=32, patch_size=8, text={"context_length": 32})


@pytest.fixture(scope="session")
def noted_weights(tmp_path_factory, clip_weights):
    """The file of a CLIP with the notes of its training."""
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    notes = {"data": {"mean": [0.4, 0.5, 0.6], "std": [0.3] * 3}}
    save_weights(load_file(clip_weights), file, notes)
    return file


@pytest.fixture(scope="session")
def noise_pairs():
    """11 pictures with one to three captions."""
    return NoisePairs(
        [[f"a {WORDS[(3 * i + j) % 10]} {WORDS[j]} thing {i}" for j in range(1 + i % 3)]
         for i in range(11)]
    )  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """11 pictures in the class folders `dark_thing`, `light` and `tiny`."""
    folder = tmp_path_factory.mktemp("classes")
    pictures = NoisePairs([["a"]] * 11, seed=1)
    for index in range(11):
        name = ("dark_thing", "light", "tiny")[index % 3]
        (folder / name).mkdir(exist_ok=True)
        pictures.image(index).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def captions(tmp_path_factory, noise_pairs):
    """The pairs as a table and its pictures."""
    folder = tmp_path_factory.mktemp("captions")
    lines = ["image,caption"]
    for index in range(len(noise_pairs)):
        noise_pairs.image(index).save(folder / f"{index}.png")
        lines += [f"{index}.png,{text}" for text in noise_pairs.captions(index)]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


# Photographs and a film


@pytest.fixture(scope="session")
def clip(clip_weights):
    return ClipFeatures.from_weights(clip_weights, device="cpu", batch_size=3)


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


# Models of open_clip

_PEER_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
_PEERS = {
    "trunk": {"timm_model_name": "small_eva_giant", "timm_pool": "token", "timm_proj": None},
    "vit": {
        "patch_size": 14,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "mlp_ratio": 48.5 / 32,
        "no_ln_pre": True,
        "norm_kwargs": {"eps": 1e-6},
    },
}


def small_eva_giant(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None,
                    cache_dir=None, **kwargs):  # fmt: skip
    """timm's `eva_giant_patch14_224` with smaller numbers."""
    sizes = {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Eva(**sizes | {"mlp_ratio": 48 / 32} | kwargs)


if not is_model("small_eva_giant"):
    register_model(small_eva_giant)


@pytest.fixture
def make_peer(tmp_path, known_models):
    """Function: open_clip's model of that size; "trunk" (timm) or "vit" (its own)."""

    def make(kind, *, sigmoid=False, **vision):
        config = {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 28} | _PEERS[kind] | vision,
            "text_cfg": _PEER_TEXT,
            "custom_text": True,
        }
        if sigmoid:
            config["init_logit_bias"] = -10
        path = tmp_path / f"small-{kind}-{sigmoid}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
        return open_clip.create_model(path.stem).eval()

    return make


@pytest.fixture
def known_models(monkeypatch):
    """Forget the configs of a test when it ends."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))


@pytest.fixture
def inputs():
    """Pictures and texts, an empty one and one that is too long among them."""
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    return images, tokenize(["the digit seven", "", "a photograph of a dog " * 20], 16)


@pytest.fixture
def assert_same_features(inputs):
    """Function: two models give the same features and factor of the logits."""

    def check(model, peer, *, atol=1e-5):
        images, tokens = inputs
        with torch.no_grad():
            for encode, one in (("encode_image", images), ("encode_text", tokens)):
                found, expected = (getattr(each, encode)(one) for each in (model, peer))
                assert expected.abs().max() > 0.1
                torch.testing.assert_close(found, expected, atol=atol, rtol=0)
            one, other = model(images, tokens), peer(images, tokens)
        for found, expected in zip(one, other, strict=False):
            if expected is not None:
                torch.testing.assert_close(found.squeeze(), expected.squeeze(), atol=atol, rtol=0)

    return check


# Steps of a training


@pytest.fixture(scope="session")
def small_clip(load_module):
    """The module `small_clip.py`."""
    return load_module(HERE / "small_clip.py")


@pytest.fixture(scope="session")
def launch(launcher, tmp_path_factory):
    """Function: run a function of `small_clip.py` in two processes; the folder that it wrote."""

    def run(command, **settings):
        folder, logs = tmp_path_factory.mktemp(command), tmp_path_factory.mktemp("logs")
        ended = launcher([command, str(folder), json.dumps(settings)], ranks=2, log=logs / "rank")
        assert ended.codes == [0, 0], ended.texts
        return folder

    return run

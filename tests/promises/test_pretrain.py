"""Pre-training: own images in every form, each objective, and the weights for everything else."""

import re
import tarfile

import pytest
import torch
from PIL import Image

import eva_backbone
from eva_pretrain.config import TeacherConfig
from eva_pretrain.tokenizer import load_tokenizer

DEBUG_TEACHER = ("--run.workers", 0, "--run.device", "cpu", "--run.no-tensorboard")


@pytest.fixture(scope="module")
def images(engine_data):
    """Folder of 16 images."""
    return engine_data / "captions/zero_shot"


def _manifest(images, folder):
    """Half of the images in a folder, half in a shard; paths below the manifest's root."""
    files = sorted(images.rglob("*.jpg"))
    (folder / "loose").mkdir()
    for file in files[::2]:
        (folder / "loose" / file.name).write_bytes(file.read_bytes())
    with tarfile.open(folder / "rest.tar", "w") as tar:
        for file in files[1::2]:
            tar.add(file, file.name)
    manifest = folder / "mine.toml"
    manifest.write_text(
        f'root = "{folder}"\n[[source]]\nname = "a"\nfolder = "loose"\n'
        '[[source]]\nname = "b"\nshards = "rest.tar"\n'
    )
    return manifest


def test_an_index_of_checked_images(run, training, images, tmp_path):
    """`eva data verify images` names what cannot be read, and the index is without it."""
    manifest = _manifest(images, tmp_path)
    (tmp_path / "loose/broken.jpg").write_bytes(b"no image")
    index = tmp_path / "mine.safetensors"
    ended = run("eva", "data", "verify", "images", manifest, "--write", index, "--workers", 1,
                code=None)  # fmt: skip
    assert ended.names("broken.jpg")
    manifest.write_text(f'index = "{index}"\n{manifest.read_text()}')
    words = ("--data.train", manifest, "--data.val", "", "--data.val-share", 0.25)
    words = (*words, "--run.epochs", 1, "--run.max-bad-samples", 0, "--run.batch-size", 4)
    run(*training("pretrain", tmp_path / "run", *words))
    log = (tmp_path / "run/log.txt").read_text()
    train, val = (int(re.search(rf"{part}: (\d+) images", log)[1]) for part in ("train", "val"))
    assert (train + val, val > 0) == (16, True)


def test_a_bad_image_is_replaced_named_and_counted(run, fails, training, metrics_of, tmp_path):
    """Among images in grey, with 16 bits, transparency and a palette, which are none."""
    (tmp_path / "images").mkdir()
    for number, mode in enumerate(("L", "I;16", "RGBA", "P")):
        image = Image.effect_noise((40, 48), 50).convert(mode)
        image.save(tmp_path / f"images/{number}.png")
    words = ("--data.train", tmp_path / "images", "--run.epochs", 1)
    run(*training("pretrain", tmp_path / "all", *words, "--run.max-bad-samples", 0))
    assert metrics_of(tmp_path / "all")[0]["samples"] == 4
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    more = (*words, "--run.batch-size", 5, "--data.val", tmp_path / "images")
    run(*training("pretrain", tmp_path / "run", *more))
    log = (tmp_path / "run/log.txt").read_text()
    assert "left a sample out of the validation that cannot be read" in log
    assert log.count("broken.png") >= 2
    strict = training("pretrain", tmp_path / "strict", *more, "--run.max-bad-samples", 0)
    fails(run(*strict, code=None), "broken.png")


@pytest.mark.parametrize(
    "recipe", ["eva_debug_tokens", pytest.param("eva_debug_distill", marks=pytest.mark.slow)]
)
def test_the_other_objectives(
    run, training, metrics_of, images, read_page, tmp_path, caplog, recipe
):
    """Codes need a tokenizer, which is trained first, of the same teacher's features."""
    more = ()
    if recipe == "eva_debug_tokens":
        tokenizer = tmp_path / "tokenizer"
        run("eva", "pretrain", "train-tokenizer", "tokenizer_debug", "--data.train", images,
            "--run.output", tokenizer, "--run.batch-size", 4, *DEBUG_TEACHER)  # fmt: skip
        more = ("--tokenizer", tokenizer)
        load_tokenizer(str(tokenizer), TeacherConfig(model="another"))
        assert "teacher.model=" in caplog.text
    words = training("pretrain", tmp_path / "run", "--run.epochs", 1, *more)
    run(*(recipe if word == "eva_debug_digit_scenes" else word for word in words))
    losses = [line["loss"] for line in metrics_of(tmp_path / "run") if "loss" in line]
    assert len(losses) == 4
    assert read_page(tmp_path / "run/report.html").curves >= 3


def test_the_weights_are_the_official_ones_by_name_and_patch(call_eva, finished, tmp_path):
    """As the official files, for patch 14 and 16 of EVA-g: here 8, and 16."""
    output = finished("pretrain")
    ours = eva_backbone.load_vit(str(output)).eval()
    for patch in (8, 16):
        file = tmp_path / f"{patch}.pt"
        words = ("--to", "official", "--dtype", "fp16", "--patch-size", patch, "--output", file)
        call_eva("eva", "convert", output, *words, code=0)
        assert {*torch.load(file, weights_only=True)} == {"model"}
        model = eva_backbone.load_vit(str(file)).eval()
        pixels = torch.randn(1, 3, 64 * patch // 8, 64 * patch // 8)
        with torch.no_grad():
            features = model.forward_features(pixels)
        assert features.shape == (1, 65, 128)
        if patch == 8:
            with torch.no_grad():
                expected = ours.forward_features(pixels)
            assert (features - expected).abs().max() < 2e-2 * expected.abs().max()


def test_the_method_in_python(documented):
    """Masked patches alone are predicted; equal features are a loss of -1."""
    build = documented("eva_pretrain", "masked_image_modeling")
    loss = documented("eva_pretrain", "negative_cosine")
    model = build("eva_debug", target_dim=24, drop_path_rate=0.0).eval()
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, :3, :4] = True
    features = model(torch.randn(2, 3, 64, 64), mask)
    assert features.shape == (24, 24)
    assert loss(features, features).item() == pytest.approx(-1, abs=1e-6)

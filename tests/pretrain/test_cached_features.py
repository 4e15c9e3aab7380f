"""The features in a cache are the teacher's for the very view that the student sees."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from skimage import data

from eva_backbone import build_vit
from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.cached_features import open_part
from eva_pretrain.config import DataConfig, PretrainConfig, StudentConfig, TeacherConfig
from eva_pretrain.teachers import build_teacher
from eva_pretrain.transforms import PretrainTransform, Views
from eva_runs.errors import TooManyUnreadableError


@pytest.fixture
def config(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        image = Image.fromarray(getattr(data, name)()).resize((60, 40))
        image.save(tmp_path / f"images/{name}.png")
    return PretrainConfig(
        student=StudentConfig(variant="eva_debug_small", image_size=32),
        teacher=TeacherConfig(
            library="eva", model="", weights="eva_debug", image_size=0, precision="auto",
            cache=str(tmp_path / "cache"), views=4,
        ),
        data=DataConfig(train=str(tmp_path / "images")),
        objective="distillation",
        optimizer=OptimizerConfig(lr=1e-3),
        run=RunConfig(output=tmp_path / "run", batch_size=2, workers=0),
    )  # fmt: skip


def _cache(config, teacher):
    views = Views(size=32, mean=config.data.mean, std=config.data.std)
    return open_part("train", PretrainTransform(views), teacher=teacher, config=config)


def test_features_belong_to_the_crop_and_flip_that_the_student_sees(config):
    teacher = build_teacher(config.teacher, torch.device("cpu"), patches=config.student.grid[0])
    assert (teacher.image_size, teacher.grid, teacher.dim) == ((32, 32), (4, 4), 128)
    cache = _cache(config, teacher)
    assert len(cache) == 12
    torch.manual_seed(5)  # which has no influence
    samples = [cache[index] for index in (0, 1, 7, 11, 0)]
    for sample in samples:
        expected = teacher(sample["images"][None])[0]
        torch.testing.assert_close(sample["features"].float(), expected, atol=5e-3, rtol=5e-3)
    assert not torch.equal(samples[0]["images"], samples[1]["images"])
    assert torch.equal(samples[0]["images"], samples[4]["images"])


def test_features_of_repeated_images_are_those_of_their_own_crops(config, tmp_path):
    text = f'[[source]]\nname = "photos"\nfolder = "{tmp_path / "images"}"\nweight = 2.0\n'
    (tmp_path / "twice.toml").write_text(text)
    config = replace(config, data=DataConfig(train=str(tmp_path / "twice.toml")))
    teacher = build_teacher(config.teacher, torch.device("cpu"), patches=4)
    cache = _cache(config, teacher)
    assert len(cache) == 24
    for sample in map(cache.__getitem__, range(24)):
        expected = teacher(sample["images"][None])[0]
        torch.testing.assert_close(sample["features"].float(), expected, atol=5e-3, rtol=5e-3)


def test_unreadable_images_are_left_out_up_to_a_number(config, tmp_path):
    teacher = build_teacher(config.teacher, torch.device("cpu"), patches=4)
    (tmp_path / "images/bad.png").write_bytes(b"no image")
    cache = _cache(config, teacher)
    names = [cache.sample_id(index) for index in range(len(cache))]
    assert len(names) == 12
    assert not any("bad.png" in name for name in names)
    expected = teacher(cache[11]["images"][None])[0]
    torch.testing.assert_close(cache[11]["features"].float(), expected, atol=5e-3, rtol=5e-3)
    strict = replace(config, run=replace(config.run, max_bad_samples=3))
    with pytest.raises(TooManyUnreadableError, match=r"4.*16"):
        _cache(strict, teacher)


def as_numbers(change):
    def rewrite(file):
        with safe_open(file, "pt") as content:
            notes, features = content.metadata(), content.get_tensor("features")
        save_file({"features": change(features).contiguous()}, file, notes)

    return rewrite


def flip_last_bit(file):
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "bit": flip_last_bit, "NaN": as_numbers(lambda one: one * torch.nan),
    "float32": as_numbers(torch.Tensor.float),
    "wider": as_numbers(lambda one: one.repeat(1, 1, 2)),
    "named otherwise": lambda file: file.write_bytes(file.read_bytes().replace(b"#", b"$")),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_features_are_not_trained_on(config, tmp_path, kind):
    teacher = build_teacher(config.teacher, torch.device("cpu"), patches=4)
    _cache(config, teacher)
    *_, file = sorted((tmp_path / "cache/train").glob("features-*-of-*"))
    DAMAGES[kind](file)
    with pytest.raises(ValueError, match=file.name):
        [*map(_cache(config, teacher).__getitem__, range(12))]


def test_a_detector_is_a_teacher_too(tmp_path):
    """Its size, patch and pixels are read off its weights."""
    detector = build_vit(
        "eva_debug_small", img_size=64, pretrain_img_size=64, rel_pos="beit", window_size=4,
        global_attn_indexes=(1, 3), extra_tokens=(), final_norm=False,
    )  # fmt: skip
    state = {f"backbone.net.{name}": value for name, value in detector.state_dict().items()}
    torch.save({"model": state}, tmp_path / "detector.pth")
    config = TeacherConfig(
        library="eva", model="", weights=str(tmp_path / "detector.pth"), image_size=0,
        precision="auto",
    )  # fmt: skip
    teacher = build_teacher(config, torch.device("cpu"), patches=8)
    images = torch.randn(1, 3, 64, 64)
    expected = detector.eval().forward_features(images)
    torch.testing.assert_close(teacher(images), expected, atol=1e-5, rtol=1e-5)
    assert teacher.mean[0] == pytest.approx(0.485)

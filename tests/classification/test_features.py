"""Features of pictures: pooling and preprocessing follow the weights."""

import pytest
import torch
from PIL import Image
from skimage import data

from eva_backbone import build_vit
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from eva_classification.features import FeatureExtractor
from eva_classification.models import build_classifier
from eva_data.bands import Bands
from eva_data.transforms import evaluation_transform
from eva_engine.checkpoints.files import save_weights


@pytest.fixture(scope="module")
def pictures():
    """Two photographs."""
    return [Image.fromarray(image) for image in (data.chelsea(), data.astronaut())]


@pytest.fixture
def save(tmp_path, randomise):
    """Function: a model of `eva_debug`'s size with random weights, saved; gives both."""

    def write(model, prefix="", **more):
        state = randomise(model).eval().state_dict() | more
        file = tmp_path / "weights.pt"
        torch.save({"model": {prefix + name: value for name, value in state.items()}}, file)
        return model, file

    return write


def images(pictures, *, side=64, mean=CLIP_MEAN, std=CLIP_STD):
    transform = evaluation_transform(side, mean=mean, std=std)
    return torch.stack([transform(picture) for picture in pictures])


def test_a_fine_tuned_classifier_gives_what_its_head_sees(save, pictures):
    model, file = save(build_classifier("eva_debug", num_classes=3, img_size=64))
    extract = FeatureExtractor.from_weights(file, device="cpu")
    assert extract.pooling == "mean"
    features = extract(pictures)
    torch.testing.assert_close(features, model.pool(images(pictures)).detach())
    torch.testing.assert_close(model.head(features), model(images(pictures)))


def test_weights_of_bands_are_refused(tmp_path):
    bands = Bands(low=(0.0,) * 3, high=(9.0,) * 3, mean=(0.5,) * 3, std=(1.0,) * 3, show=(1, 2, 3))
    model = build_classifier("eva_debug", num_classes=3, img_size=64)
    file = tmp_path / "model.safetensors"
    save_weights(model.state_dict(), file, {"bands": bands.as_json()})
    with pytest.raises(ValueError, match=r"model.safetensors.*3"):
        FeatureExtractor.from_weights(file, device="cpu")


def test_a_masked_image_model_gives_the_mean_of_its_normed_patches(save, pictures):
    vit = build_vit("eva_debug", img_size=64, extra_tokens=("cls", "mask"))
    model, file = save(vit, **{"lm_head.weight": torch.zeros(9, 128)})
    extract = FeatureExtractor.from_weights(file, device="cpu")
    tokens = model.forward_features(images(pictures)).detach()
    torch.testing.assert_close(extract(pictures), tokens[:, 1:].mean(1))
    torch.testing.assert_close(
        extract.patches(pictures), tokens[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
    )
    token = FeatureExtractor.from_weights(file, device="cpu", pooling="cls")
    torch.testing.assert_close(token(pictures), tokens[:, 0])


@pytest.mark.parametrize("rel_pos", ["vitdet", "none"])
def test_detectors_and_segmentors_saw_imagenet_s_statistics(save, pictures, rel_pos):
    if rel_pos == "vitdet":
        options = {"rel_pos": "vitdet", "window_size": 4, "global_attn_indexes": (4,),
                   "extra_tokens": (), "pretrain_img_size": 32}  # fmt: skip
        prefix, more = "backbone.net.", {}
    else:
        options = {"layer_scale": 1.0}
        prefix, more = "backbone.", {"level_embed": torch.zeros(3, 128)}
    model, file = save(
        build_vit("eva_debug", img_size=64, final_norm=False, **options), prefix, **more
    )
    extract = FeatureExtractor.from_weights(file, device="cpu")
    assert (extract.pooling, extract.image_size) == ("mean", 64)
    seen = images(pictures, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if rel_pos == "none":
        model.pos_embed.data[:, 0] = 0
    torch.testing.assert_close(extract.patches(pictures), model.forward_feature_map(seen).detach())
    smaller = FeatureExtractor.from_weights(file, device="cpu", image_size=48)
    assert smaller.patches(pictures).shape == (2, 128, 6, 6)
    if rel_pos == "vitdet":
        with pytest.raises(ValueError, match="pooling='mean'"):
            FeatureExtractor.from_weights(file, device="cpu", pooling="cls")


def test_what_can_be_given(pictures, tmp_path):
    extract = FeatureExtractor.from_weights("eva_debug", device="cpu", image_size=64)
    pictures[0].save(tmp_path / "picture.png")
    alone = extract(pictures[0])
    assert alone.shape == (1, 128)
    assert alone.dtype == torch.float32
    torch.testing.assert_close(extract(pictures)[:1], alone)
    torch.testing.assert_close(extract(str(tmp_path / "picture.png")), alone)
    torch.testing.assert_close(extract([tmp_path / "picture.png"]), alone)
    torch.testing.assert_close(extract(images(pictures[:1])), alone)
    assert extract.patches(torch.zeros(1, 3, 64, 96)).shape == (1, 128, 8, 12)
    grey = pictures[0].convert("L")
    assert extract(grey).shape == (1, 128)

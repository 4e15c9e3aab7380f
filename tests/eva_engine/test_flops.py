"""FLOPs of a training step, by the sizes of the ViT's matrices."""

import pytest
from torch import nn

from eva_backbone.layer_decay import freeze_layers
from eva_backbone.variants import VARIANTS, build_vit
from eva_engine.config import VitConfig
from eva_engine.flops import forward_flops, image_input, training_flops


def build(config):
    assert not config.init_checkpoint  # its weights are not needed to count
    return build_vit(config.variant, img_size=config.image_size)


@pytest.mark.parametrize("size", [48, 64])
def test_flops_of_a_vit(size):
    config = VitConfig(variant="eva_debug", image_size=size, init_checkpoint="eva_debug")
    vit = VARIANTS["eva_debug"]
    patches, width = (size // vit.patch_size) ** 2, vit.embed_dim
    tokens = patches + 1
    block = tokens * (4 * width**2 + 2 * width * vit.mlp_dim) + 2 * tokens**2 * width
    forward = 2 * (patches * 3 * vit.patch_size**2 * width + vit.depth * block)
    assert training_flops(build, config, backward=False) == forward
    assert training_flops(build, config) == 3 * forward
    assert config.depth == vit.depth


def test_only_a_head_is_trained():
    """Then the list of blocks is frozen as one module, which itself is never called."""

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = build_vit("eva_debug", img_size=48)
            self.head = nn.Linear(128, 7)
            self.vit.requires_grad_(False)

        def forward(self, images):
            return self.head(self.vit(images)[:, 0])

    def blocks_alone(config):
        model = build(config)
        freeze_layers(model, depth=config.depth, below=config.depth + 1)
        return model

    config = VitConfig(variant="eva_debug", image_size=48)
    total = training_flops(build, config, backward=False)
    head = 2 * 128 * 7
    assert training_flops(lambda _: Classifier(), config) == total + 3 * head
    assert training_flops(blocks_alone, config) == total  # a norm has no matrix


def test_training_counts_what_a_step_computes():
    """Layers behave as in training, with stochastic depth's blocks and with norms of a batch."""

    class Halving(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(48), nn.Linear(48, 7)

        def forward(self, images):
            x, weight = self.norm(images.flatten(1)), self.layer.weight
            kept = 24 if self.training else 48
            return nn.functional.linear(x[:, :kept], weight[:, :kept])

    def dropping(config):
        return build_vit(config.variant, img_size=48, drop_path_rate=config.drop_path_rate)

    config = VitConfig(variant="eva_debug", image_size=48, drop_path_rate=0.9)
    assert training_flops(dropping, config) == training_flops(build, config)
    assert training_flops(lambda _: Halving(), config, inputs=[image_input(4)]) == 3 * 2 * 24 * 7
    assert forward_flops(Halving, image_input(4)) == 2 * 48 * 7

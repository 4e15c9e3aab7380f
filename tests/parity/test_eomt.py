"""EoMT beside transformers': outputs and losses, masks on and off, weights copied both ways."""

import re

import pytest
import torch
import transformers
from mmengine.structures import InstanceData

from eva_backbone import VisionTransformer
from eva_backbone.eomt import EoMT
from eva_openmmlab.stand_in import install_stand_in

install_stand_in()  # before mmdetection's models
from eva_mmdetection.model.mask2former import EoMTHead  # noqa: E402

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 64,
    "num_queries": 5,
    "num_blocks": 2,
    "num_labels": 3,
    "train_num_points": 64,
}
VIT = {
    "img_size": 64,
    "patch_size": 16,
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "mlp_dim": 64,
    "qkv_bias": "qkv",
    "layer_scale": 1.0,
    "num_registers": 4,
}
ROTARY = {
    "base": 100.0,
    "reference": 4 * torch.pi,
    "offset": 0.5,
    "centred": True,
    "halves": True,
}
KINDS = {
    "Eomt": ({"mlp_ratio": 2}, {}),
    # in training theirs scales its coordinates at random, which ours never does
    "EomtDinov3": (
        {"intermediate_size": 64, "pos_embed_rescale": None},
        {"positions": "none", "rotary": ROTARY},
    ),
}
# theirs -> ours, first match
NAMES = (
    (r"embeddings\.(cls_token|register_tokens)", r"net.\1"),
    (r"embeddings\.patch_embeddings\.(projection\.)?(weight|bias)", r"net.patch_embed.proj.\2"),
    (r"embeddings\.position_embeddings\.weight", "net.pos_embed"),
    (r"layernorm\.", "net.norm."),
    (r"query\.weight", "query"),
    (r"layers\.(\d+)\.attention\.o(ut)?_proj", r"net.blocks.\1.attn.proj"),
    (r"layers\.(\d+)\.attention\.[qkv]_proj", r"net.blocks.\1.attn.qkv"),
    (r"layers\.(\d+)\.layer_scale(\d)\.lambda1", r"net.blocks.\1.gamma_\2"),
    (r"layers\.(\d+)\.mlp\.(up_proj|fc1)", r"net.blocks.\1.mlp.fc1"),
    (r"layers\.(\d+)\.mlp\.(down_proj|fc2)", r"net.blocks.\1.mlp.fc2"),
    (r"layers\.", "net.blocks."),
    (r"upscale_block\.block\.(\d)\.conv1", r"upscale.\1.0"),
    (r"upscale_block\.block\.(\d)\.conv2", r"upscale.\1.2"),
    (r"upscale_block\.block\.(\d)\.layernorm2d", r"upscale.\1.3"),
    (r"mask_head\.fc1", "mask_mlp.0"),
    (r"mask_head\.fc2", "mask_mlp.2"),
    (r"mask_head\.fc3", "mask_mlp.4"),
    (r"class_predictor", "cls_embed"),
)


def pairs(theirs, ours):
    """Yield each tensor of theirs and its place in ours, which may be a part of it."""
    for name, value in theirs.state_dict().items():
        pattern, new = next(
            ((p, n) for p, n in NAMES if re.match(p, name)), (None, "mask_probability")
        )
        if name == "criterion.empty_weight":
            continue
        place = ours[re.sub(pattern, new, name, count=1) if pattern else new]
        if projection := re.search(r"\.([qkv])_proj", name):
            place = place.chunk(3)["qkv".index(projection[1])]
        if "position" in name:
            place = place[:, 1:]
        yield value, place.view(value.shape)


@pytest.fixture(params=KINDS)
def models(request):
    """Theirs, and ours with its head; all random."""
    torch.manual_seed(0)
    more, of_vit = KINDS[request.param]
    config = getattr(transformers, f"{request.param}Config")(**SIZES, patch_size=16, **more)
    theirs = getattr(transformers, f"{request.param}ForUniversalSegmentation")(config)
    ours = EoMT(VisionTransformer(**VIT, **of_vit), num_queries=5, query_blocks=2)
    head = EoMTHead(in_channels=32, num_things_classes=3, num_points=64)
    with torch.no_grad():
        for model in (theirs, ours, head):
            for name, parameter in model.named_parameters():
                scale = 0.2 if parameter.ndim > 1 else 0.1
                offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(scale * torch.randn_like(parameter) + offset)
        if ours.net.pos_embed is not None:
            ours.net.pos_embed[:, 0] = 0  # theirs has none for the class token
        for block in ours.net.blocks:  # a bias of keys changes nothing, and theirs may have none
            block.attn.qkv.bias.chunk(3)[1].zero_()
    return theirs, ours, head


def state(ours, head):
    """Return the tensors of both parts of ours."""
    return ours.state_dict() | head.state_dict()


@pytest.mark.parametrize("way", ["to theirs", "to ours"])
@pytest.mark.parametrize("masks", [0.0, 1.0])
def test_outputs_are_those_of_transformers(models, way, masks):
    theirs, ours, head = models
    for value, place in pairs(theirs, state(ours, head)):
        value.copy_(place) if way == "to theirs" else place.copy_(value)
    for model in models:
        model.eval()
    theirs.attn_mask_probs.fill_(masks)
    ours.mask_probability.fill_(masks)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(images)
        classes, predicted = head(ours(images))
    assert len(classes) == (3 if masks else 1)
    torch.testing.assert_close(classes[-1], expected.class_queries_logits, **TOLERANCE)
    torch.testing.assert_close(predicted[-1], expected.masks_queries_logits, **TOLERANCE)
    assert predicted[-1].std() > 0.1


def test_losses_and_gradients_in_training_are_those_of_transformers(models):
    theirs, ours, head = models
    for value, place in pairs(theirs, state(ours, head)):
        value.copy_(place)
    images = torch.randn(2, 3, 64, 64)
    masks = [(torch.rand(n, 64, 64) > 0.5).float() for n in (2, 1)]
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    torch.manual_seed(1)
    total = theirs.train()(images, mask_labels=masks, class_labels=labels).loss
    outputs = head(ours.train()(images))
    assert len(outputs[0]) == 3
    truth = [InstanceData(labels=c, masks=m) for c, m in zip(labels, masks, strict=True)]
    torch.manual_seed(1)  # the points of the losses
    losses = head.loss_by_feat(*outputs, truth, [{}, {}])
    torch.testing.assert_close(sum(losses.values()).squeeze(), total, **TOLERANCE)
    total.backward()
    sum(losses.values()).backward()
    torch.testing.assert_close(ours.query.grad[0], theirs.query.weight.grad, atol=1e-5, rtol=1e-3)

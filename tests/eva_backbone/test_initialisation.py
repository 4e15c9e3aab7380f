"""A model whose weights come from a file is built without drawing them first."""

import pytest
import torch

from eva_backbone import VisionTransformer, load_pretrained, no_init_weights

DRAWS = {"normal_", "uniform_", "trunc_normal_", "erfinv_"}
SIZES = {"img_size": 28, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 24}


class _Count(torch.utils._python_dispatch.TorchDispatchMode):
    """Count the random numbers that are drawn."""

    drawn = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in DRAWS:
            self.drawn += args[0].numel()
        return func(*args, **kwargs or {})


def _equal(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def _lacks(lacking, name):
    return lacking in name if lacking != "norm." else name.startswith("norm.")


def test_no_numbers_are_drawn_for_what_a_file_replaces(randomise, save):
    file = save(randomise(VisionTransformer(**SIZES)).state_dict())
    expected = VisionTransformer(**SIZES)
    load_pretrained(expected, file)
    with _Count() as count, no_init_weights():
        model = VisionTransformer(**SIZES)
        load_pretrained(model, file)
    patches = model.patch_embed.proj
    assert count.drawn == patches.weight.numel() + patches.bias.numel()  # PyTorch's own
    _equal(model, expected)


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ({"rel_pos": "vitdet", "extra_tokens": (), "final_norm": False}, "rel_pos"),
        ({"rel_pos": "table", "layer_scale": 0.1}, "bias_table"),
        ({"layer_scale": 0.1}, "gamma"),
        ({"extra_tokens": ("cls", "mask")}, "mask_token"),
        ({}, "norm."),
    ],
)
def test_what_a_file_lacks_is_initialised_as_usual(randomise, save, options, lacking):
    source = randomise(VisionTransformer(**SIZES | options)).state_dict()
    file = save({name: value for name, value in source.items() if not _lacks(lacking, name)})
    expected = VisionTransformer(**SIZES | options)
    load_pretrained(expected, file)
    with no_init_weights():
        model = VisionTransformer(**SIZES | options)
    with torch.no_grad():  # what the memory happens to hold
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    report = load_pretrained(model, file)
    assert report.missing
    for name, value in model.state_dict().items():
        if name == "mask_token":  # random
            assert 0 < value.std() < 0.05
        else:
            assert torch.equal(value, expected.state_dict()[name]), name


def test_nobody_trains_on_what_the_memory_holds(save, randomise):
    with no_init_weights():
        model = VisionTransformer(**SIZES)
    images = torch.zeros(1, 3, 28, 28)
    with pytest.raises(RuntimeError, match="weights"):
        model(images)
    with pytest.raises(ValueError, match=r"weights\.pt"):  # and a refused file
        load_pretrained(model, save(VisionTransformer(**SIZES | {"embed_dim": 8}).state_dict()))
    with pytest.raises(RuntimeError, match="weights"):
        model(images)
    model.init_weights()
    assert model(images).isfinite().all()

"""The benchmarks of training steps and evaluations run, and would notice unequal work."""

import pytest
import torch

CPU = torch.device("cpu")
TINY = ["--width=32", "--depth=2", "--heads=2", "--batch=2", "--rounds=1"]


@pytest.fixture
def clip_args(benchmark):
    parser = benchmark("clip_models").parser_of_towers(None, batch=4)
    return parser.parse_args(["--size=trial", "--rounds=1", "--precision=fp32"])


def test_unequal_contrastive_steps_are_refused(benchmark, clip_args, monkeypatch):
    program = benchmark("clip_step")

    def other(size):
        model = program.build_peer(size)
        model.visual.trunk.norm.eps = 0.1
        return model

    monkeypatch.setitem(program.BUILDERS, "open_clip", other)
    with pytest.raises(ValueError, match=r"open_clip, .* the steps do not do the same"):
        list(program.check(clip_args, CPU))


@pytest.mark.slow
def test_the_stock_model_has_our_sizes(benchmark, clip_args):
    """`--size complete` is EVA-CLIP-g of both."""
    program, models = benchmark("clip_step"), benchmark("clip_models")
    clip_args.size = "complete"
    with torch.device("meta"):
        ours, peer = models.build_ours("complete"), models.build_peer("complete")
    weights = models.peer_weights(ours.state_dict())
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in peer.state_dict().items()
    }
    assert sum(value.numel() for value in weights.values()) == 1_136_435_841
    flops = [program.flops_of(who, clip_args) for who in program.BUILDERS]
    assert flops == [pytest.approx(3 * 537.1e9, rel=1e-3), pytest.approx(3 * 547.4e9, rel=1e-3)]


def test_unequal_pretraining_steps_are_refused(benchmark, monkeypatch):
    program = benchmark("pretrain_step")

    class Other(program.PlainModel):
        def forward(self, images, mask):
            return super().forward(images, ~mask)[: int(mask.sum())]

    monkeypatch.setattr(program, "PlainModel", Other)
    with pytest.raises(ValueError, match=r"a plain step, .* the steps do not do the same"):
        list(program.compare(program.parse(TINY), CPU))

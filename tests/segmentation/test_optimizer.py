"""Layer decay, weight decay and the schedule of the official runs."""

import pytest
import torch
from mmengine.optim import LinearLR, OptimWrapper, PolyLR
from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from eva_openmmlab.optimizer import TwoStagePolyLR, WarmupPolyLR

ADE, COCO = "ade20k/mask2former_eva_g_896_20k", "coco_stuff164k/mask2former_eva_g_896_60k"
ADE_REL, COCO_REL = (
    "ade20k/mask2former_eva_g_relpos_896_40k",
    "coco_stuff164k/mask2former_eva_g_relpos_896_80k",
)
FIRST = {
    "backbone": ("cls_token", "pos_embed", "patch_embed."),
    "decode_head": ("mask_embed.", "cls_embed.", "level_embed.", "query_embed.", "query_feat."),
}


def groups_of(cfg, model):
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=cfg.constructor,
            optim_wrapper_cfg={
                key: value
                for key, value in cfg.items()
                if key not in ("constructor", "paramwise_cfg")
            },
            paramwise_cfg=cfg.paramwise_cfg,
        )
    )(model)
    return wrapper.optimizer.param_groups


@pytest.fixture(scope="module")
def segmentor(load_config):
    """Function: a published segmentor on the meta device."""

    def build(name):
        with torch.device("meta"):
            return MODELS.build(load_config(name).model)

    return build


@pytest.mark.parametrize("name", [ADE, COCO_REL])
def test_every_parameter_is_in_one_of_84_groups_with_the_official_rates(
    name, segmentor, load_config
):
    model, cfg = segmentor(name), load_config(name).optim_wrapper
    peak, decay = cfg.optimizer.lr, cfg.paramwise_cfg.layer_decay
    groups = groups_of(cfg, model)
    assert len(groups) == 84
    settings = {
        id(value): (group["lr"], group["weight_decay"])
        for group in groups
        for value in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(settings)
    names = dict(model.named_parameters())
    assert {id(value) for value in names.values()} == set(settings)
    for key, value in names.items():
        part, _, rest = key.partition(".")
        if part == "backbone" and rest.startswith("blocks."):
            layer = int(rest.split(".")[1]) + 1
        elif rest.startswith(FIRST[part]):
            layer = 0
        else:
            layer = 41
        plain = value.ndim == 1 or key.endswith(".bias")
        lr, weight_decay = settings[id(value)]
        assert lr == pytest.approx(peak * decay ** (41 - layer)), key
        assert weight_decay == (0.0 if plain else 0.05), key


def test_the_optimizer_has_its_own_weight_decay(segmentor, load_config):
    cfg = load_config(ADE).optim_wrapper
    del cfg.optimizer["weight_decay"]
    found = {group["weight_decay"] for group in groups_of(cfg, segmentor(ADE))}
    assert found == {0.0, 0.01}


@pytest.mark.parametrize(
    ("name", "logged"), [(COCO, 5.978e-08), (ADE, 2.984e-07)], ids=["coco", "ade"]
)
def test_the_logged_rate_of_iteration_50_is_that_of_the_official_logs(
    name, logged, segmentor, load_config
):
    cfg = load_config(name)
    groups = groups_of(cfg.optim_wrapper, segmentor(name))
    schedule = dict(cfg.param_scheduler[0], end=cfg.train_cfg.max_iters)
    schedule.pop("type")
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=groups[0]["lr"])
    factor = WarmupPolyLR(optimizer, **schedule).factor(49)  # 50 was logged after 49 steps
    assert groups[0]["lr"] * factor == pytest.approx(logged, rel=1e-3)


def test_frozen_parameters_are_in_no_group(load_config):
    cfg = load_config("ade20k/mask2former_eva_g_512_24gb")
    cfg.optim_wrapper.type = "OptimWrapper"  # the other one wants a GPU
    for setting in ("dtype", "loss_scale"):
        del cfg.optim_wrapper[setting]
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    grouped = {
        id(value) for group in groups_of(cfg.optim_wrapper, model) for value in group["params"]
    }
    trained = {id(value) for value in model.parameters() if value.requires_grad}
    assert grouped == trained
    assert id(model.backbone.blocks[0].attn.proj.weight) not in grouped
    assert id(model.backbone.blocks[39].attn.proj.weight) in grouped


def rates(make_schedulers, steps, peaks=(1.0, 0.25)):
    layers = [nn.Linear(1, 1) for _ in peaks]
    optimizer = torch.optim.SGD(
        [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, peaks, strict=True)],
        lr=1.0,
    )
    wrapper = OptimWrapper(optimizer)
    schedulers = make_schedulers(wrapper)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(seen, dtype=torch.float64)


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_the_schedule_is_mmcv_1s_closed_form_and_mmengines_overlapping_pair(power):
    total, warmup = 60, 15
    ours = rates(
        lambda o: [WarmupPolyLR(o, warmup_iters=warmup, end=total, power=power, by_epoch=False)],
        total,
    )
    t = torch.arange(total, dtype=torch.float64)
    closed = (1 - t / total) ** power
    closed = torch.where(t < warmup, closed * (1 - (1 - t / warmup) * (1 - 1e-6)), closed)
    expected = closed[:, None] * torch.tensor([1.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    if power == 1.0:
        pair = rates(
            lambda o: [
                LinearLR(o, start_factor=1e-6, begin=0, end=warmup + 1, by_epoch=False),
                PolyLR(o, power=1, eta_min=0, begin=0, end=total + 1, by_epoch=False),
            ],
            total,
        )
        torch.testing.assert_close(ours, pair, rtol=1e-10, atol=0)


def test_the_head_warms_up_before_the_vit_and_both_decay_to_zero():
    """As `TwoStageWarmupPolySchedule` of github.com/tue-mps/eomt, in closed form."""
    names, total, head, vit = ("blocks.1", "embeddings", "behind the blocks"), 40, 4, 10
    layers = [nn.Linear(1, 1) for _ in names]
    groups = [
        dict(params=layer.parameters(), name=n) for n, layer in zip(names, layers, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    shares = dict(head_warmup=head / total, vit_warmup=vit / total, end=total, by_epoch=False)
    schedule = TwoStagePolyLR(optimizer, **shares)
    for step in range(total):
        expected = [step / head if step < head else (1 - (step - head) / (total - head)) ** 0.9]
        late = max(0, step - head)
        expected.append(late / vit if late < vit else (1 - (late - vit) / (total - 14)) ** 0.9)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([expected[1], expected[1], expected[0]])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("begin", [0, 4])
@pytest.mark.parametrize("stop", [1, 3, 7, 12])
def test_a_schedule_continues_where_it_was(begin, stop):
    rates = []
    for stops in ((), (stop,)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule = WarmupPolyLR(optimizer, warmup_iters=3, begin=begin, end=12, by_epoch=False)
        rates.append([])
        for step in range(13):
            if step in stops:
                saved = optimizer.state_dict(), schedule.state_dict()
                optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
                schedule = WarmupPolyLR(
                    optimizer, warmup_iters=3, begin=begin, end=12, by_epoch=False
                )
                optimizer.load_state_dict(saved[0])
                schedule.load_state_dict(saved[1])
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    assert rates[0] == rates[1]

"""Learning rates of the official runs: over the layers of the ViT, and over the iterations."""

import math
import re
from collections.abc import Sequence
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS
from torch import nn

from eva_backbone.layer_decay import param_groups_layer_decay

# What the official code also counts among the embeddings, so that it learns most slowly.
_OFFICIAL_FIRST = re.compile(
    r"decode_head\.(mask_embed|cls_embed|level_embed|query_embed|query_feat)\."
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class EVALayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Groups the parameters of a model by the ViT's layers.

    Reads from `paramwise_cfg`:

    * `layer_decay`: factor between neighbouring layers, 0.95 in paper Table 19; 1 without it.
    * `official_head_rule`: let the head's classifier, mask MLP, queries and level embeddings learn
      at the rate of the embeddings (0.95 ** 41 = 0.12 of the peak for EVA-g), as the official code
      does; False lets them learn like the rest of the head.
    * `decay_vectors`: decay vectors and biases too, as the official detectors do.
    * `full_rate_blocks`: last blocks that learn at the rate of the head, as EoMT's with DINOv3.

    Vectors and biases are not decayed otherwise. Position and query embeddings, the class token and
    tables of relative positions are: the official exemption for them never matched a name.
    """

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        # without any setting mmengine would make one group, which decays vectors too
        super().__init__(optim_wrapper_cfg, paramwise_cfg or {"layer_decay": 1.0})

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, *args: Any, **kwargs: Any
    ) -> None:
        """Append the groups of a model, at most two for each layer, embeddings first."""
        settings = {"official_head_rule": True} | self.paramwise_cfg
        official = settings.pop("official_head_rule")
        backbone: Any = module.backbone
        groups = param_groups_layer_decay(
            module,
            depth=len(getattr(backbone, "net", backbone).blocks),  # of EVAViT or EVAViTAdapter
            lr=self.base_lr,
            weight_decay=self.base_wd,
            no_weight_decay=("bias",),
            embeddings=_OFFICIAL_FIRST if official else None,
            **settings,
        )
        for group in groups if self.base_wd is None else ():
            if group["weight_decay"] is None:
                del group["weight_decay"]  # the optimizer has its own
        params += groups


class IterationLR(LRSchedulerMixin, _ParamScheduler):
    """Base class of schedules over all iterations of a run, whose shape the config alone decides.

    With `by_epoch=False` the runner fills in `train_cfg.max_iters` as the `end`; `base` are
    `last_step` and `verbose`, as in mmengine.
    """

    factor: Any  # share of the peak learning rate, 0 to 1, after some iterations
    accumulate = 1  # iterations of a step of the optimizer, at the rate of the first of them

    def __init__(self, optimizer: Any, *, by_epoch: bool = True, **base: Any) -> None:
        if by_epoch:
            raise ValueError(f"{type(self).__name__} counts iterations: set by_epoch=False")
        super().__init__(optimizer, by_epoch=False, **base)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a checkpoint's iteration, with the rates and the length of this config."""
        self._global_step = state_dict["_global_step"]
        self.last_step = max(-1, min(self._global_step, self.end - 1) - self.begin)
        groups = self.optimizer.param_groups
        values = self._get_value() if self.last_step >= 0 else []  # -1 is before it begins
        for group, value in zip(groups, values, strict=False):
            group[self.param_name] = value
        self._last_value = [group[self.param_name] for group in groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the state without what the config says of the optimizer."""
        return {key: value for key, value in super().state_dict().items() if key != "accumulate"}

    @property
    def _iteration(self) -> int:
        """Iteration at which the present step of the optimizer began."""
        within: int = (self.begin + self.last_step) % self.accumulate
        return max(0, self.last_step - within)

    def _get_value(self) -> list[float]:
        return [base * self.factor(self._iteration) for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class TwoStagePolyLR(IterationLR):
    """EoMT's schedule: the head warms up, then the ViT does, each before its polynomial decay.

    Args:
        optimizer: Optimizer or its wrapper, with groups of `EVALayerDecayConstructor`.
        head_warmup: Share of the run in which what is behind the blocks warms up alone.
        vit_warmup: Share that the ViT takes after it.
        power: Exponent of the decay.
        **base: As for `IterationLR`.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        head_warmup: float,
        vit_warmup: float,
        power: float = 0.9,
        **base: Any,
    ) -> None:
        self.head_warmup, self.vit_warmup, self.power = head_warmup, vit_warmup, power
        super().__init__(optimizer, **base)

    def _get_value(self) -> list[float]:
        names = [group.get("name", "") for group in self.optimizer.param_groups]
        return [
            base * self.factor(self._iteration, of_vit=name.startswith(("embeddings", "blocks.")))
            for base, name in zip(self.base_values, names, strict=True)
        ]

    def factor(self, iteration: int, *, of_vit: bool) -> float:
        """Return the share of the peak learning rate after some steps."""
        progress, begin, length = iteration / self.end, 0.0, self.head_warmup
        if of_vit:
            begin, length = self.head_warmup, self.vit_warmup
        if progress < begin + length:
            return max(0.0, progress - begin) / length
        decay = (progress - begin - length) / (1 - begin - length)
        return float((1 - decay) ** self.power)


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(IterationLR):
    """mmcv 1's `poly` policy: polynomial decay to zero, multiplied by a linear warm-up.

    At iteration t of N with W iterations of warm-up (t counts from 0, so the last iteration still
    learns at 1 / N of the peak):

        lr = peak * (1 - t / N) ** power * (1 - (1 - t / W) * (1 - warmup_ratio) for t < W)

    mmengine's `LinearLR` and `PolyLR` give the same where they overlap and end one iteration after
    W and N.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup_iters: W.
        power: Exponent of the decay.
        warmup_ratio: Factor at iteration 0.
        **base: As for `IterationLR`.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup_iters: int,
        power: float = 1.0,
        warmup_ratio: float = 1e-6,
        **base: Any,
    ) -> None:
        self.warmup_iters, self.power, self.warmup_ratio = warmup_iters, power, warmup_ratio
        super().__init__(optimizer, **base)

    def factor(self, iteration: int) -> float:
        """Return the share of the peak learning rate after some steps."""
        value: float = (1 - iteration / self.end) ** self.power
        if iteration < self.warmup_iters:
            value *= 1 - (1 - iteration / self.warmup_iters) * (1 - self.warmup_ratio)
        return value


@PARAM_SCHEDULERS.register_module()
class EVAWarmupLR(IterationLR):
    """A linear warm-up, then steps of a tenth, a cosine or both; places are shares of the run.

    Values are those of detectron2's `WarmupParamScheduler` with `MultiStepParamScheduler` or
    `CosineParamScheduler`.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup: Share of the run until the full rate.
        steps: Shares of the run after which the rate is a tenth of the one before.
        cosine_to: Share of the peak at which a cosine ends; None for no cosine.
        warmup_factor: Share of the peak at iteration 0.
        **base: As for `IterationLR`.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup: float,
        steps: Sequence[float] = (),
        cosine_to: float | None = None,
        warmup_factor: float = 0.001,
        **base: Any,
    ) -> None:
        self.warmup, self.warmup_factor = warmup, warmup_factor
        self.steps, self.cosine_to = tuple(steps), cosine_to
        super().__init__(optimizer, **base)

    def factor(self, iteration: int) -> float:
        """Return the share of the peak learning rate after some steps."""
        progress = iteration / self.end
        if progress >= self.warmup:
            return self._shape(progress)
        part = progress / self.warmup
        return self._shape(self.warmup) * part + self._shape(0.0) * self.warmup_factor * (1 - part)

    def _shape(self, progress: float) -> float:
        value = float(0.1 ** sum(progress >= step for step in self.steps))
        if self.cosine_to is not None:
            value *= self.cosine_to + 0.5 * (1 - self.cosine_to) * (
                1 + math.cos(math.pi * progress)
            )
        return value

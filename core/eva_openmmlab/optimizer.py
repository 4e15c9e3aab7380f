"""Learning rates of the official runs: over the layers of the ViT, and over the iterations."""

import re
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from eva_backbone.layer_decay import layer_groups, layer_index

_SETTINGS = {"layer_decay", "official_head_rule", "decay_vectors"}
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

    Vectors and biases are not decayed otherwise. Position and query embeddings, the class token and
    tables of relative positions are: the official exemption for them never matched a name.
    """

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        # without any setting mmengine would make one group, which decays vectors too
        super().__init__(optim_wrapper_cfg, paramwise_cfg or {"layer_decay": 1.0})

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append the groups of a model's parameters, at most two for each layer, embeddings first.

        Raises:
            ValueError: For an unknown setting.
        """
        if unknown := sorted(set(self.paramwise_cfg) - _SETTINGS):
            raise ValueError(f"paramwise_cfg has {unknown}, and may have {sorted(_SETTINGS)}")
        decay = self.paramwise_cfg.get("layer_decay", 1.0)
        official = self.paramwise_cfg.get("official_head_rule", True)
        all_decay = self.paramwise_cfg.get("decay_vectors", False)
        backbone: Any = module.backbone
        depth = len(getattr(backbone, "net", backbone).blocks)  # of EVAViT or EVAViTAdapter
        labels = layer_groups(depth)
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            first = official and _OFFICIAL_FIRST.match(name)
            index = 0 if first else layer_index(name, depth)
            plain = not all_decay and (parameter.ndim <= 1 or name.endswith(".bias"))
            scale = decay ** (depth + 1 - index)
            group = groups.setdefault(
                (index, plain),
                {
                    "params": [],
                    "lr": self.base_lr * scale,
                    "lr_scale": scale,
                    "weight_decay": 0.0 if plain else self.base_wd,
                    "name": labels[index].label + (" without decay" if plain else ""),
                },
            )
            group["params"].append(parameter)
        params.extend(groups[key] for key in sorted(groups))


class IterationLR(LRSchedulerMixin, _ParamScheduler):
    """Base class of schedules over all iterations of a run, whose shape the config alone decides.

    Args:
        optimizer: Optimizer or its wrapper.
        end: Iterations of the run; the runner fills in `train_cfg.max_iters`.
        begin: Must be 0.
        by_epoch: Must be set to False, by which the runner fills in iterations.
        **base: `last_step` and `verbose`, as in mmengine.

    Raises:
        ValueError: For another `begin` or `by_epoch=True`.
    """

    settings: tuple[str, ...]  # attributes that no checkpoint replaces
    factor: Any  # share of the peak learning rate, 0 to 1, after some steps

    def __init__(
        self, optimizer: Any, *, end: int, begin: int = 0, by_epoch: bool = True, **base: Any
    ) -> None:
        if begin or by_epoch:
            raise ValueError(
                f"{type(self).__name__} counts iterations from 0, got begin={begin}, "
                f"by_epoch={by_epoch}; set by_epoch=False and leave begin out"
            )
        self.iters = end
        super().__init__(optimizer, end=end, by_epoch=False, **base)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a checkpoint's iteration."""
        own = {name: getattr(self, name) for name in ("iters", "end", *self.settings)}
        super().load_state_dict(state_dict | own)

    def _get_value(self) -> list[float]:
        return [base * self.factor(self.last_step) for base in self.base_values]

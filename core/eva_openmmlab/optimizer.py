"""Layer-wise learning-rate decay and weight decay as in the official code."""

import re
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
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
        """Append the groups of all trainable parameters.

        Args:
            params: List that receives at most two groups for each layer, embeddings first.
            module: The model; its backbone's blocks are counted.
            prefix: Not used.
            is_dcn_module: Not used.

        Raises:
            ValueError: For an unknown setting or a model without a ViT.
        """
        unknown = sorted(set(self.paramwise_cfg) - _SETTINGS)
        if unknown:
            raise ValueError(
                f"paramwise_cfg has unknown settings {', '.join(unknown)}; "
                f"EVALayerDecayConstructor reads {', '.join(sorted(_SETTINGS))}"
            )
        decay = self.paramwise_cfg.get("layer_decay", 1.0)
        official = self.paramwise_cfg.get("official_head_rule", True)
        all_decay = self.paramwise_cfg.get("decay_vectors", False)
        depth = _depth(module)
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


def _depth(module: nn.Module) -> int:
    backbone = getattr(module, "backbone", None)
    for vit in (backbone, getattr(backbone, "net", None)):  # EVAViTAdapter, EVAViT
        blocks = getattr(vit, "blocks", None)
        if isinstance(blocks, nn.ModuleList):
            return len(blocks)
    raise ValueError(
        f"{type(module).__name__} has neither backbone.blocks nor backbone.net.blocks; "
        "EVALayerDecayConstructor is for models around the EVA ViT"
    )

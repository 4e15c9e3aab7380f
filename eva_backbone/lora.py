"""Low-rank adapters on the linear layers of the ViT, by peft (LoRA, arXiv:2106.09685).

The settings are part of a command line: torch and peft are imported where adapters are added.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

LAYERS = {  # of a gated MLP, fc1 is both of its first layers
    "qkv": ("attn.qkv",),
    "proj": ("attn.proj",),
    "fc1": ("mlp.fc1", "mlp.w1", "mlp.w2"),
    "fc2": ("mlp.fc2", "mlp.w3"),
}
_POSITIONS = re.compile(r".+\.(rel_pos_[hw]|relative_position_bias_table)")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Adapters, beside which the blocks and embeddings of the ViT are frozen.

    Attributes:
        rank: Rank of each adapter; 0 has none and trains all weights.
        alpha: The adapters' outputs are scaled by alpha / rank; None is 2 x rank.
        dropout: Dropout probability of the adapters' inputs.
        layers: Linear layers of a block that have one: `qkv`, `proj`, `fc1`, `fc2`.
        first_block: First block with adapters. Those below have no backward pass.
    """

    rank: int = 0
    alpha: float | None = None
    dropout: float = 0.0
    layers: tuple[str, ...] = tuple(LAYERS)
    first_block: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> "LoraSettings":
        """Make settings of a config's `lora`, of whatever types its values are."""
        try:
            return cls(**(settings or {}))
        except TypeError as error:
            raise ValueError(f"lora={settings}: {error}") from None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # configs may give a list
        set_ = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        some = bool(self.layers) and {*self.layers} <= LAYERS.keys()
        rules = {
            "rank and first_block must be at least 0": min(self.rank, self.first_block) >= 0,
            "alpha must be a number above 0": 0 < self.scale < math.inf,
            "dropout must be in [0, 1)": 0 <= self.dropout < 1,
            f"layers must be some of {', '.join(LAYERS)}": some,
            f"{', '.join(set_)} has no effect without a rank": bool(self.rank or not set_),
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ValueError(f"{'; '.join(broken)}: got {self}")

    @property
    def scale(self) -> float:
        """Factor of the adapters' outputs."""
        return 2.0 if self.alpha is None else self.alpha / max(1, self.rank)


def add_adapters(
    model: "nn.Module", settings: LoraSettings, *, beside: Sequence[str] = ()
) -> list[str]:
    """Add adapters, which start as zero, to the one ViT in a model; freeze the rest of its blocks.

    Outputs stay the same bit for bit. The embeddings are frozen too, but those of the ViT's
    parameters that `beside` names; what lies behind the blocks
    (norms, heads, pyramids) is trained if it was, and so are relative positions of the blocks with
    adapters, which start as zero in many trainings. Works on the meta device.

    Returns:
        Names of the layers that have adapters, in the model.

    Raises:
        ValueError: For a rank of 0, or if there is no such block, or its layers are frozen.
        ModuleNotFoundError: Without peft.
    """
    from eva_backbone.layer_decay import layer_index
    from eva_backbone.recording import quiet
    from eva_backbone.vit import VisionTransformer

    ((name, vit),) = [(k, m) for k, m in model.named_modules() if isinstance(m, VisionTransformer)]
    first, depth = settings.first_block, vit.depth
    if not settings.rank or first >= depth:
        raise ValueError(f"adapters need a rank from 1 and a first_block below {depth}: {settings}")
    layer_names = {part for layer in settings.layers for part in LAYERS[layer]}
    targets = [
        f"blocks.{index}.{name}"
        for index in range(first, depth)
        for name, _ in vit.blocks[index].named_modules()
        if name in layer_names
    ]
    linear: dict[str, Any] = {target: vit.get_submodule(target) for target in targets}
    frozen = [target for target in targets if not linear[target].weight.requires_grad]
    if frozen:
        layers = f"{frozen[0]} to {frozen[-1]} are frozen"
        raise ValueError(f"{layers}, and lora.first_block={first}: set it above, or freeze none")

    def stays_trained(name: str) -> bool:
        group = layer_index(name, depth)
        of_blocks = group > first and _POSITIONS.fullmatch(name) is not None
        return name in beside or group > depth or of_blocks

    trained = [
        parameter
        for name, parameter in vit.named_parameters()
        if parameter.requires_grad and stays_trained(name)
    ]
    with quiet():  # torchao, about kernels that nothing here uses
        from peft import LoraConfig, inject_adapter_in_model
    alpha, dropout = settings.scale * settings.rank, settings.dropout
    sizes: Any = {"r": settings.rank, "lora_alpha": alpha, "lora_dropout": dropout}
    inject_adapter_in_model(LoraConfig(**sizes, target_modules=targets), vit)
    for parameter in trained:
        parameter.requires_grad_(True)
    return [f"{name}.{target}".lstrip(".") for target in targets]

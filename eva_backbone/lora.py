"""Low-rank adapters on the linear layers of the ViT, by peft (LoRA, arXiv:2106.09685).

peft.LoraConfig chooses modules by name; here they are those of the ViT alone, whatever is around
it. torch and peft are imported when adapters are added: the settings are part of a command line.
"""

import logging
import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from eva_backbone.vit import VisionTransformer

LAYERS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_POSITIONS = re.compile(r".+\.(rel_pos_[hw]|relative_position_bias_table)")
_MOST_RANK = 4096  # above the width of every ViT: a typing error


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # configs may give a list
        others = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        unused = [] if self.rank else others
        rules = {
            f"rank must be an integer from 0 to {_MOST_RANK}": 0 <= self.rank <= _MOST_RANK,
            "alpha must be a number above 0": 0 < self.scale < math.inf,
            "dropout must be in [0, 1)": 0 <= self.dropout < 1,
            f"layers must be some of {', '.join(LAYERS)}": (
                bool(self.layers) and {*self.layers} <= LAYERS.keys()
            ),
            "first_block must be at least 0": self.first_block >= 0,
            f"{', '.join(unused)} has no effect without lora.rank": not unused,
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise ValueError(f"lora: {'; '.join(broken)}: got {self}")

    @property
    def scale(self) -> float:
        """Factor of the adapters' outputs."""
        return 2.0 if self.alpha is None else self.alpha / max(1, self.rank)


def find_vit(model: "nn.Module") -> "tuple[str, VisionTransformer]":
    """Find the one ViT in a model, and what stands in front of the names of its parameters."""
    from eva_backbone.vit import VisionTransformer

    found = [(k, m) for k, m in model.named_modules() if isinstance(m, VisionTransformer)]
    if len(found) != 1:
        raise ValueError(f"adapters need a model with one ViT, got {len(found)}")
    (name, vit), *_ = found
    return f"{name}." if name else "", vit


def add_adapters(model: "nn.Module", settings: LoraSettings) -> None:
    """Add adapters to the ViT in a model, which start as zero, and freeze the rest of its blocks.

    Outputs stay the same bit for bit. The embeddings are frozen too; what lies behind the blocks
    (norms, heads, pyramids) is trained if it was, and so are relative positions of the blocks with
    adapters, which start as zero in many trainings. Works on the meta device.

    Args:
        model: The ViT or any model around it, with its first weights; it is changed.
        settings: Adapters, of a rank above 0.

    Raises:
        ValueError: If the model has no such block, or layers that get adapters are frozen.
        ModuleNotFoundError: Without peft.
    """
    from eva_backbone.layer_decay import layer_index

    _, vit = find_vit(model)
    first, depth = settings.first_block, vit.depth
    if not settings.rank:
        raise ValueError("lora.rank=0 adds no adapters: give a rank from 1, such as 16")
    if first >= depth:
        raise ValueError(f"lora.first_block={first}, but the ViT has the blocks 0 to {depth - 1}")
    numbers = range(first, depth)
    targets = [f"blocks.{n}.{LAYERS[layer]}" for n in numbers for layer in settings.layers]
    weights = {target: vit.get_submodule(target).weight for target in targets}
    if frozen := [target for target in targets if not weights[target].requires_grad]:
        last = int(frozen[-1].split(".")[1]) + 1
        fix = f"set lora.first_block={last}, or freeze fewer" if last < depth else "do not freeze"
        raise ValueError(
            f"lora.first_block={first} puts adapters on frozen layers, such as {frozen[0]}: {fix}"
        )
    trained = [
        parameter
        for name, parameter in vit.named_parameters()
        if parameter.requires_grad
        if (group := layer_index(name, depth)) > depth
        or (group > first and _POSITIONS.fullmatch(name))
    ]
    peft = _import_peft()
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scale * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=targets,
    )
    peft.inject_adapter_in_model(config, vit)
    for parameter in trained:
        parameter.requires_grad_(True)


def _import_peft() -> Any:
    logging.disable(logging.WARNING)  # of torchao, about kernels that nothing here uses
    try:
        import peft
    finally:
        logging.disable(logging.NOTSET)
    return peft

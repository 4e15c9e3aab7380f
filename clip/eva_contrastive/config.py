"""Settings of contrastive training: what a recipe defines and the command line overrides."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from eva_backbone.lora import LoraSettings
from eva_engine.config import (
    OptimizerConfig,
    RunConfig,
    SplitConfig,
    VitConfig,
    at_least,
    check_literals,
    check_probabilities,
    require,
    require_increasing,
)

Loss = Literal["contrastive", "sigmoid"]
OF_PAIRS = ("loss", "image_to_text_r1", "text_to_image_r1")  # results of an evaluation
OF_CLASSES = ("top1", "top5")
EXPORTED_FILES = ("clip.json", "bpe_simple_vocab_16e6.txt.gz")  # beside the towers
# Largest difference, as a share of the largest value: between two programs in half precision the
# order of summation alone makes up for much of it.
EXPORT_TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
VIDEO_FRAMES, MOST_VIDEO_FRAMES = 8, 256  # of a video that is ranked or searched


@dataclass(frozen=True)
class TextVariant:
    """Shape of a text tower: width, depth, heads, tokens of a text, words of the vocabulary."""

    width: int
    depth: int
    num_heads: int
    context_length: int = 77
    vocab_size: int = 49408


TEXT_VARIANTS = {
    #                         width depth heads
    "clip_l": TextVariant(768, 12, 12),  # OpenAI CLIP-L, of EVA-CLIP-g
    "openclip_h": TextVariant(1024, 24, 16),  # of EVA-CLIP-g-plus
    "debug": TextVariant(64, 2, 1, context_length=32),
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig(VitConfig):
    """Both towers. `init_checkpoint` is the vision tower's, or that of a complete CLIP.

    Attributes:
        text: A key of `TEXT_VARIANTS`.
        text_checkpoint: Weights that the text tower begins with, by name or path: OpenAI's CLIP (a
            TorchScript archive), an open_clip file, or one of this toolkit; empty
            for random ones, or for those of a complete CLIP in `init_checkpoint`.
        embed_dim: Values of a feature.
        patch_dropout: Share of the patches that a training step leaves out.
    """

    text: Literal["clip_l", "openclip_h", "debug"] = "clip_l"
    text_checkpoint: str = ""
    embed_dim: int = 1024
    patch_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, embed_dim=1)
        check_probabilities(self, "patch_dropout")


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """How a tower is trained.

    Attributes:
        lr: Peak learning rate of its last layer.
        weight_decay: Weight decay of its matrices; biases, vectors, position embeddings and the
            class token have none.
        layer_decay: Learning-rate factor between neighbouring layers.
        frozen_blocks: Lower blocks that are not trained, with the embeddings; 0 trains all.
        locked: Train nothing of the tower (LiT).
    """

    lr: float
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    frozen_blocks: int = 0
    locked: bool = False

    def __post_init__(self) -> None:
        at_least(self, lr=0, weight_decay=0, frozen_blocks=0)
        check_probabilities(self, "layer_decay")


@dataclass(frozen=True, kw_only=True)
class DataConfig(SplitConfig):
    """Pairs of images and captions, see `eva_data.captions.sources`.

    Attributes:
        train: Shards, a table (CSV, TSV), a JSON list, a folder, a manifest or an index.
        val: The same for validation; empty has none, unless there is a `val_share`.
        val_share: Share of the images in `train` that is not trained on but evaluated, each with
            all of its captions, chosen by their names and always the same; 0 for none.
        root: Folder that the paths of tables and lists begin in; empty for their own folder.
        image_column: Column of a table, or key of a list, with the images' paths; empty finds it
            by its name.
        caption_column: Column of a table, or key of a list or of a JSON member of shards, with the
            captions; empty finds it.
        zero_shot: Folder of class folders on which the run's zero-shot accuracy is evaluated;
            empty evaluates none.
        templates: Sentences for `zero_shot` with `{}` in place of the class; or a name of
            `eva_contrastive/evaluation/prompts.toml`, or a text file with one in each line.
        crop_scale: Smallest and largest share of an image that a training crop has.
    """

    evaluated_by: ClassVar = ("val", "val_share", "zero_shot")

    root: str = ""
    image_column: str = ""
    caption_column: str = ""
    zero_shot: str = ""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    crop_scale: tuple[float, float] = (0.9, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing(self, "crop_scale")


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """A recipe of contrastive training.

    With `run.accumulate` the pairs of all micro-batches of a step are compared with each other.

    Attributes:
        model: Both towers.
        data: Pairs.
        loss: `contrastive` (CLIP) or `sigmoid` (SigLIP).
        vision: How the vision tower is trained.
        text: How the text tower is trained.
        optimizer: Optimizer and schedule; its `lr` is that of the logit scale, and weight decay and
            layer decay are those of the towers.
        run: Settings of the run.
        max_logit_scale: Largest factor of the cosines; CLIP's is 100.
        lora: Adapters that are trained in place of the vision tower's blocks.
    """

    model: ModelConfig
    data: DataConfig
    loss: Loss = "contrastive"
    vision: TowerConfig
    text: TowerConfig
    optimizer: OptimizerConfig
    run: RunConfig
    max_logit_scale: float = 100.0
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        check_literals(self)
        at_least(self, max_logit_scale=1)
        vision, text_tower, model = self.vision, self.text, self.model
        zero = "optimizer.lr=0, of which the towers' rates are multiples: give a small one, as 1e-9"
        require(self.optimizer.lr > 0, zero)
        message = "vision.locked and text.locked leave nothing to train: unlock one"
        require(not (vision.locked and text_tower.locked), message)
        for name in ("weight_decay", "layer_decay"):
            value = getattr(self.optimizer, name)
            without = f"optimizer.{name}={value} has no effect: set vision.{name} and text.{name}"
            require(value == getattr(OptimizerConfig, name), without)
        for name, depth in (("vision", model.depth), ("text", TEXT_VARIANTS[model.text].depth)):
            frozen = getattr(self, name).frozen_blocks
            require(frozen <= depth, f"{name}.frozen_blocks={frozen}, but it has {depth} blocks")
        require(
            not (vision.locked and (model.drop_path_rate or model.patch_dropout)),
            "model.drop_path_rate and model.patch_dropout have no use for a tower that is locked: "
            "set both to 0",
        )

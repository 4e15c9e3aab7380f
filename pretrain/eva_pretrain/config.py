"""Settings of pre-training: what a recipe defines and the command line overrides."""

from dataclasses import dataclass, field
from typing import Literal

from eva_backbone.variants import VARIANTS
from eva_engine.config import (
    OptimizerConfig,
    RunConfig,
    SplitConfig,
    VitConfig,
    at_least,
    check_literals,
    require,
    require_increasing,
)

Objective = Literal["masked_features", "distillation", "masked_tokens"]


@dataclass(frozen=True, kw_only=True)
class StudentConfig(VitConfig):
    """The ViT that is pre-trained."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        side = self.image_size // VARIANTS[self.variant].patch_size
        return side, side


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The frozen model whose features are predicted.

    Attributes:
        library: `open_clip` for a CLIP vision tower, `eva` for a ViT of this toolkit, `timm` for
            a feature map of any network of timm, `pixels` for the image itself (MAE's targets).
        model: Name in open_clip or timm, or a key of `eva_backbone.VARIANTS`; with `eva`, empty for
            the size that the weights have.
        weights: open_clip's tag (which it downloads) or a file; for `eva` an official name, a file
            or a run, of any task; for `timm` a file, or empty for its own, which it downloads.
        image_size: Side of its images; its patches must be as many as the student's. With `eva`, 0
            for the size at which they are.
        stride: With `timm`, pixels of its image from cell to cell of the map; 0 for the deepest.
        precision: Precision of its weights and computation; fp16 needs a GPU, and is what `auto`
            takes there.
        cache: Folder for features of fixed views, with `eva` or a file of `timm`: they are computed
            once, before the training, and not in each step; empty for none.
        views: Views in the cache of each training image, of random crop and flip.
    """

    library: Literal["open_clip", "eva", "timm", "pixels"] = "open_clip"
    model: str = "ViT-L-14"
    weights: str = "openai"
    image_size: int = 224
    stride: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp16"
    cache: str = ""
    views: int = 1

    def __post_init__(self) -> None:
        check_literals(self)
        at_least(self, views=1)
        views, file = self.views, self.library in ("eva", "timm") and self.weights != ""
        require(bool(self.cache) or views == 1, f"views={views} needs a cache: set teacher.cache")
        source = f"library={self.library} and weights={self.weights!r}"
        require(file or not self.cache, f"cache needs weights of library eva or timm; got {source}")


@dataclass(frozen=True, kw_only=True)
class DataConfig(SplitConfig):
    """Images without labels.

    Attributes:
        train: A manifest (`.toml`) of image folders, one folder, or tar shards such as
            `shards/{0000..0099}.tar`.
        val: Images for validation, named in the same ways; empty evaluates nothing, unless there is
            a `val_share`.
        val_share: Share of `train` that is not trained on but evaluated, see `SplitConfig`.
        crop_scale: Smallest and largest share of the image's area that a crop has.
    """

    crop_scale: tuple[float, float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_increasing(self, "crop_scale")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Block-wise masking (paper section 2.2: 40 %).

    Attributes:
        num_masked: Most patches that are hidden: 105 of 256.
        min_block: Least patches of a rectangle.
    """

    num_masked: int = 105
    min_block: int = 16

    def __post_init__(self) -> None:
        at_least(self, num_masked=1, min_block=1)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A pre-training recipe.

    Attributes:
        student: The model that is trained.
        teacher: The model that is predicted.
        data: Images.
        mask: Patches that are hidden; without effect on `distillation`, which hides nothing.
        objective: `masked_features` is EVA's; `distillation` and `masked_tokens` are the others
            of Table 2.
        tokenizer: Folder of a trained tokenizer, for `masked_tokens` only.
        optimizer: Optimizer and schedule.
        run: Output, device, length and precision of the run.
    """

    student: StudentConfig
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: DataConfig
    mask: MaskConfig = field(default_factory=MaskConfig)
    objective: Objective = "masked_features"
    tokenizer: str = ""
    optimizer: OptimizerConfig
    run: RunConfig

    def __post_init__(self) -> None:
        check_literals(self)
        require(
            (self.objective == "masked_tokens") == bool(self.tokenizer),
            "tokenizer=FOLDER, the output of train_tokenizer.py, belongs to "
            f"objective=masked_tokens alone; got {self.objective} and {self.tokenizer!r}",
        )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A recipe for the tokenizer of `masked_tokens`.

    Attributes:
        teacher: The model whose features are tokenised.
        data: Images; they are only cropped and flipped.
        num_codes: Codes of the codebook.
        code_dim: Channels of a code.
        width: Hidden width of encoder and decoder.
        num_heads: Heads of the decoder.
        optimizer: Optimizer and schedule.
        run: Output, device, length and precision of the run.
    """

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: DataConfig
    num_codes: int = 8192
    code_dim: int = 32
    width: int = 768
    num_heads: int = 12
    optimizer: OptimizerConfig
    run: RunConfig

    def __post_init__(self) -> None:
        at_least(self, num_codes=2, code_dim=2, width=1, num_heads=1)
        evaluated = self.data.val or self.data.val_share
        require(not evaluated, "a tokenizer is not evaluated: leave data.val and val_share out")
        teacher = self.teacher
        fits = teacher.image_size > 0 and not teacher.cache and teacher.library != "pixels"
        require(fits, "a tokenizer's teacher is a network with an image_size, and has no cache")

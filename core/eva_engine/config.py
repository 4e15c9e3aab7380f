"""Settings of a run: frozen dataclasses, from which the command line is made."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

from eva_backbone.lora import LoraSettings
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, VARIANTS, variant_arguments
from eva_data.files import expand_home
from eva_data.holdout import check_setting
from eva_runs.run_logs import RunMessages

MESSAGES = RunMessages(unit="step")
MOST_WORKERS = 512  # of one training process; more is a typing error that would fill the machine
LARGEST_SEED = 2**32 - 1  # of torch, numpy and what is computed of it
METRICS = "metrics.jsonl"  # log of a run
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer with a warm-up and a half cosine, both per step.

    Attributes:
        name: `adamw`; for contrastive training with large batches `deepspeed_lamb`, EVA-CLIP's, or
            `lamb`, timm's; or `lars` (with `zero_stage=0`) for linear probes with large batches.
        lr: Peak learning rate of the last layer group, for the complete batch; never scaled.
        min_lr: Learning rate that the cosine approaches.
        warmup_epochs: Epochs of linear warm-up from 0.
        betas: Decay rates of all but `lars`.
        eps: Epsilon of all but `lars`.
        momentum: Momentum of `lars`.
        weight_decay: Weight decay of matrices; biases, vectors, `pos_embed` and `cls_token` have
            none.
        layer_decay: Learning-rate factor between neighbouring layers.
        clip_grad: Largest global gradient norm; 0 does not clip.
    """

    name: Literal["adamw", "deepspeed_lamb", "lamb", "lars"] = "adamw"
    lr: float
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    clip_grad: float = 0.0

    def __post_init__(self) -> None:
        check_literals(self)
        at_least(self, lr=0, min_lr=0, warmup_epochs=0, eps=0, weight_decay=0, clip_grad=0)
        check_probabilities(self, "layer_decay", "momentum")
        require(
            all(0 <= beta < 1 for beta in self.betas), f"betas must be in [0, 1), got {self.betas}"
        )
        for name in ("betas", "eps") if self.name == "lars" else ("momentum",):
            value = getattr(self, name)
            require(
                value == getattr(OptimizerConfig, name),
                f"{name}={value} has no effect on name={self.name}",
            )
        require(self.min_lr <= self.lr, f"min_lr {self.min_lr} is above lr {self.lr}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run is carried out.

    Attributes:
        output: Folder of the run: logs, checkpoints, the resolved config.
        resume: Continue the run in the output folder from its newest undamaged checkpoint; where
            no run has saved yet, it begins.
        epochs: Passes over the data. The schedule spans them all, so another number changes every
            learning rate.
        batch_size: Samples of one process in one forward pass. An optimizer step takes
            batch_size x accumulate x processes; a run that continues keeps this product, and its
            forward passes have the largest size up to batch_size that divides it.
        accumulate: Forward passes of an optimizer step, where a run begins.
        seed: Order of the data, augmentation, initialisation and stochastic depth.
        precision: `fp16` with dynamic loss scale (GPU only), `bf16` or `fp32`. Half precision
            keeps the weights in half and float32 master weights in the optimizer; gradients of
            several forward passes are added in float32.
        zero_stage: 1 shares the optimizer's state among processes, 2 the gradients too, 0 keeps all
            in each (float32 only).
        compile: Compile the model with `torch.compile`, a ViT block by block.
        device: `cuda`, `cpu`, or `auto` for a GPU where there is one.
        workers: Processes that load data, for each training process.
        loader_timeout: Seconds to wait for a batch of theirs, before the run ends.
        ema_decay: Decay of the exponential moving average of the weights, in float32; 0 has none.
        log_every: Steps between lines of the log.
        checkpoint_every: Steps between checkpoints; 0 saves at the end of each epoch.
        keep_checkpoints: Complete checkpoints that are kept.
        evaluate_every: Epochs between evaluations; 0 evaluates at the end only.
        best_metric: Result of the evaluation, such as `top1`, whose best weights are kept in the
            folder `best` (the smallest `loss`, the largest of all others); empty keeps none.
        nonfinite: Effect of a loss or gradient that is not finite: `stop` the run before the step,
            or `skip` the step. (An overflow that the loss scale of fp16 takes care of is neither.)
        max_skipped: Steps in a row that `skip` may leave out before the run stops.
        max_bad_samples: Samples that may be replaced because they cannot be read, each counted
            once, over all processes and over resumes; a validation of videos leaves out as many.
            Another error in a sample ends the run.
        tensorboard: Write TensorBoard files.
    """

    output: Path
    resume: bool = False
    epochs: int = 1
    batch_size: int = 1
    accumulate: int = 1
    seed: int = 0
    precision: Precision = "fp32"
    zero_stage: Literal[0, 1, 2] = 1
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = 8
    loader_timeout: float = 1800.0
    ema_decay: float = 0.0
    log_every: int = 20
    checkpoint_every: int = 0
    keep_checkpoints: int = 3
    evaluate_every: int = 1
    best_metric: str = ""
    nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 10
    max_bad_samples: int = 100
    tensorboard: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", expand_home(self.output))
        check_literals(self)
        at_least(self, epochs=1, batch_size=1, accumulate=1, log_every=1, keep_checkpoints=1)
        at_least(self, workers=0, checkpoint_every=0, evaluate_every=0, seed=0)
        at_least(self, max_skipped=0, max_bad_samples=0, loader_timeout=1)
        require(self.seed <= LARGEST_SEED, f"seed must be at most {LARGEST_SEED}, got {self.seed}")
        most = MOST_WORKERS
        require(self.workers <= most, f"workers must be at most {most}, got {self.workers}")
        require(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), got {self.ema_decay}")
        require(
            self.nonfinite == "skip" or self.max_skipped == RunConfig.max_skipped,
            f"max_skipped={self.max_skipped} has no effect with nonfinite=stop: set nonfinite=skip",
        )
        require(
            self.zero_stage > 0 or self.precision == "fp32",
            f"zero_stage=0 needs precision=fp32, got {self.precision}: set zero_stage=1, whose "
            "optimizer keeps float32 weights",
        )


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """A ViT that is trained.

    Attributes:
        variant: A key of `eva_backbone.VARIANTS`.
        image_size: Side of its images in pixels.
        drop_path_rate: Stochastic depth rate of the last block; it rises linearly from 0.
        activation_checkpointing: Recompute each block in the backward pass, for less memory.
        init_checkpoint: Weights to begin with, by name or path; empty for random ones.
    """

    variant: str
    image_size: int = 224
    drop_path_rate: float = 0.0
    activation_checkpointing: bool = False
    init_checkpoint: str = ""

    def __post_init__(self) -> None:
        variant_arguments(self.variant)  # which refuses an unknown one
        check_literals(self)

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return VARIANTS[self.variant].depth


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """Statistics by which pixels are normalised: CLIP's, which EVA was trained with, or others.

    Attributes:
        mean: Mean of the pixels, which is subtracted.
        std: Standard deviation of the pixels, by which they are divided.
    """

    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            values = tuple(getattr(self, name))
            fits = len(values) == 3 and all(least < value < math.inf for value in values)
            above = " above 0" if name == "std" else ""
            require(fits, f"{name} must be three finite numbers{above}, got {values}")


@dataclass(frozen=True, kw_only=True)
class SplitConfig(PixelConfig):
    """Data to train on and to validate on; a project says in which forms.

    Attributes:
        train: Training data.
        val: Validation data; empty evaluates nothing, unless there is a `val_share`.
        val_share: Share of `train` that is not trained on but evaluated, of each class if there are
            classes, chosen by the samples' names and always the same; 0 for none.
    """

    evaluated_by: ClassVar[tuple[str, ...]] = ("val", "val_share")  # what names data for scores

    train: str
    val: str = ""
    val_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        check_setting(self.val_share, self.val)


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(SplitConfig):
    """Data with a class for each sample.

    Attributes:
        classes: Text file with a class in each line, in the order of the labels, such as the
            folders of ImageNet-21K; empty takes the classes from `train`.
        allow_empty_classes: Train on classes that no sample is of, too.
    """

    classes: str = ""
    allow_empty_classes: bool = False


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Mixing of the samples of a batch (timm's Mixup), and smoothing of their labels.

    Attributes:
        mixup: Alpha of mixup, 0 for none.
        cutmix: Alpha of cutmix, 0 for none.
        mixup_switch: Probability of cutmix; only where both are on.
        pairing: What a sample is mixed with: `reverse`, the one at its place from the end of the
            batch of a process; or `permute`, the one at its place in a random order of that batch,
            possibly itself (official for videos).
        label_smoothing: Share of a label that goes to all classes.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_switch: float = 0.5
    pairing: Literal["reverse", "permute"] = "reverse"
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        at_least(self, mixup=0, cutmix=0)
        check_probabilities(self, "mixup_switch", "label_smoothing")
        check_literals(self)
        require(
            self.mixup_switch == 0.5 or bool(self.mixup and self.cutmix),
            f"mixup_switch={self.mixup_switch} has no effect with mixup={self.mixup} and "
            f"cutmix={self.cutmix}: it chooses between the two",
        )
        require(
            self.pairing == "reverse" or bool(self.mixup or self.cutmix),
            f"pairing={self.pairing} has no effect without mixup and cutmix",
        )

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a batch of a process in which a sample that is to be mixed would be alone."""
        alone = batch_size % 2 if self.pairing == "reverse" else batch_size == 1
        need = "even" if self.pairing == "reverse" else "2 or more"
        require(
            not (alone and (self.mixup or self.cutmix)),
            f"mixup and cutmix with pairing={self.pairing} need a batch_size that is {need}, got "
            f"{batch_size}",
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A recipe that trains a classifier.

    Attributes:
        model: The classifier; it has as many classes as the data.
        data: Samples and labels.
        augment: Augmentation.
        optimizer: Optimizer and schedule.
        run: Settings of the run.
        lora: Adapters that are trained in place of the blocks.
    """

    model: VitConfig
    data: LabelledConfig
    augment: MixingConfig
    optimizer: OptimizerConfig
    run: RunConfig
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        self.augment.check_batch_size(self.run.batch_size)


class Recipe(Protocol):
    """A project's config: what a run is told besides model and data."""

    @property
    def run(self) -> RunConfig: ...  # noqa: D102

    @property
    def optimizer(self) -> OptimizerConfig: ...  # noqa: D102


def require(holds: bool, otherwise: str) -> None:
    """Raise a ValueError with the message `otherwise`, unless it holds."""
    if not holds:
        raise ValueError(otherwise)


def at_least(config: Any, **limits: float) -> None:
    """Refuse values of a config that are below a limit (name=smallest value) or not finite."""
    for name, limit in limits.items():
        value = getattr(config, name)
        fits = math.isfinite(value) and value >= limit
        require(fits, f"{name} must be at least {limit}, got {value}")


def require_increasing(config: Any, name: str) -> None:
    """Refuse a setting that is not two rising numbers in (0, 1]."""
    low, high = getattr(config, name)
    message = f"{name} must be two rising numbers in (0, 1], got {low}, {high}"
    require(0 < low <= high <= 1, message)


def check_probabilities(config: Any, *names: str) -> None:
    """Refuse values of a config that are not in [0, 1]."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{name} must be in [0, 1], got {value}")


def require_evaluated(best_metric: str, data: SplitConfig) -> None:
    """Refuse `run.best_metric` if no setting of the data names what to evaluate on."""
    names = " or ".join(f"data.{name}" for name in data.evaluated_by)
    require(
        not best_metric or any(getattr(data, name) for name in data.evaluated_by),
        f"run.best_metric needs {names}; set it to nothing (--run.best-metric '')",
    )


def check_literals(config: Any) -> None:
    """Refuse values of `Literal` fields outside the literals; recipes can hold anything."""
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal:
            value, choices = getattr(config, name), get_args(hint)
            listed = ", ".join(map(str, choices))
            require(value in choices, f"{name} must be one of {listed}, got {value!r}")


def as_plain(config: Any) -> Any:
    """Turn a dataclass, or a value of one, into what JSON can hold."""
    if is_dataclass(config) and not isinstance(config, type):
        return {field.name: as_plain(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, dict):
        return {str(key): as_plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [as_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def describe_saved(checkpoint: Path | None) -> str:
    """Say what of a run is saved, given its newest complete checkpoint, and how to go on."""
    if checkpoint is None:
        return MESSAGES.saved("")
    return MESSAGES.saved(checkpoint.name, done=int(checkpoint.name.rpartition("_")[2]))

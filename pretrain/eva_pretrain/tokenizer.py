"""A tokenizer of the teacher's features, and the objective that predicts its codes (Table 2a).

Origin: vector-quantised knowledge distillation (VQ-KD) of BEiT v2, arXiv:2208.06366 (cosine codes,
k-means start, moving averages), and Jukebox, arXiv:2005.00341 (codes that nothing uses are
replaced); own code. In BEiT v2 the encoder sees pixels; here it sees the features that are to be
reconstructed, which the teacher computes anyway in every step.

Shapes: B images, N patches, n vectors, D channels of the teacher, d of a code, K codes, M masked
patches of a batch.
"""

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from eva_backbone.attention import Attention
from eva_backbone.block import Block
from eva_backbone.checkpoints.run_folders import CONFIG, complete_checkpoints
from eva_backbone.layers import LAYER_NORM_EPS
from eva_data.files import display_path, expand_home
from eva_data.image_sources import open_images
from eva_engine.checkpoints.files import WEIGHTS
from eva_engine.data.loading import open_shared
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.parameter_groups import layer_decay_groups
from eva_pretrain.config import TeacherConfig, TokenizerConfig
from eva_pretrain.masked_image_modeling import Result, negative_cosine
from eva_pretrain.report import first_samples
from eva_pretrain.teachers import build_teacher
from eva_pretrain.transforms import PretrainTransform, Views
from eva_report.content import Curve, Curves, NextStep, Section
from eva_runs.commands import command_to_run
from eva_runs.data_order import seed_everything

_KMEANS_STEPS = 10
_CHUNK = 4096  # vectors that are compared with all codes at once: 128 MiB for 8192 codes

logger = logging.getLogger(__name__)


class Codebook(nn.Module):
    """Vector quantisation by the cosine, without gradients: the codes are moving averages.

    The first batch of a training starts the codes by k-means. Then each code moves towards the mean
    of the vectors that chose it, and codes that are hardly chosen are put on vectors of the batch.
    In distributed training all processes hold the same codes at all times.

    A code is replaced when the moving average of its use falls below `revive_below` / K.
    """

    codes: Tensor
    usage: Tensor
    started: Tensor

    def __init__(
        self, *, num_codes: int, code_dim: int, decay: float = 0.99, revive_below: float = 0.01
    ) -> None:
        super().__init__()
        self.decay = decay
        self.revive_below = revive_below
        self.register_buffer("codes", F.normalize(torch.randn(num_codes, code_dim), dim=1))
        self.register_buffer("usage", torch.full((num_codes,), 1.0 / num_codes))
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise vectors; in training then move the codes.

        Args:
            vectors: (n, d) of length 1, float32.

        Returns:
            (n, d) codes of the vectors, as they were before the move, and (K,) how many vectors
            chose each code: of all processes in training, of this process in evaluation.

        Raises:
            ValueError: In training, if the codes are not float32.
        """
        if not self.training:
            index = self.nearest(vectors)
            return self.codes[index].float(), self._choices(vectors, index)[1]
        if self.codes.dtype != torch.float32:
            raise ValueError(
                f"the codes are {self.codes.dtype}, in which moving averages stand still; train "
                "the tokenizer in float32 or under autocast"
            )
        if not self.started:
            self._start(vectors)
        index = self.nearest(vectors)
        quantised = self.codes[index]
        sums, counts = _summed(*self._choices(vectors, index))
        self._move(vectors, sums, counts)
        return quantised, counts

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Find the code with the largest cosine, (n,) int64, of each vector (n, d)."""
        codes = self.codes.float().t()
        with torch.autocast(vectors.device.type, enabled=False):
            return torch.cat([(v.float() @ codes).argmax(1) for v in vectors.split(_CHUNK)])

    def _choices(self, vectors: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Sum (K, d) and number (K,) of the vectors that chose each code."""
        codes = torch.arange(len(self.codes), device=index.device)
        sums = torch.zeros(self.codes.shape, device=index.device)
        counts = torch.zeros(len(self.codes), device=index.device)
        with torch.autocast(vectors.device.type, enabled=False):
            # a matrix product: adding rows by index sums in another order each time on a GPU
            for some, indices in zip(vectors.split(_CHUNK), index.split(_CHUNK), strict=True):
                one_hot = (indices == codes[:, None]).float()  # (K, n)
                sums += one_hot @ some
                counts += one_hot.sum(1)
        return sums, counts

    def _start(self, vectors: Tensor) -> None:
        """Begin with spherical k-means over the batch of all processes."""
        self.codes.copy_(self._candidates(vectors))
        for _ in range(_KMEANS_STEPS):
            sums, counts = _summed(*self._choices(vectors, self.nearest(vectors)))
            self.codes.copy_(torch.where(counts[:, None] > 0, F.normalize(sums, dim=1), self.codes))
        self.started.fill_(True)

    def _move(self, vectors: Tensor, sums: Tensor, counts: Tensor) -> None:
        moved = F.normalize(self.codes.lerp(F.normalize(sums, dim=1), 1 - self.decay), dim=1)
        self.codes.copy_(torch.where(counts[:, None] > 0, moved, self.codes))
        self.usage.lerp_(counts / counts.sum(), 1 - self.decay)
        even = 1.0 / len(self.codes)
        dead = self.usage < self.revive_below * even  # alike in all processes
        if dead.any():
            self.codes.copy_(torch.where(dead[:, None], self._candidates(vectors), self.codes))
            self.usage.masked_fill_(dead, even)

    def _candidates(self, vectors: Tensor) -> Tensor:
        """Draw K vectors of the first process's batch at random; repeated where it is short."""
        order = torch.randperm(len(vectors)).repeat(-(-len(self.codes) // len(vectors)))
        candidates = vectors[order[: len(self.codes)].to(vectors.device)].float().contiguous()
        if dist.is_initialized():
            dist.broadcast(candidates, src=0)
        return candidates


def _summed(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Add up tensors over all processes, in place."""
    for tensor in tensors if dist.is_initialized() else ():
        dist.all_reduce(tensor)
    return tensors


class FeatureTokenizer(nn.Module):
    """Encode features into codes, and reconstruct the features from the codes.

    Train it in float32 or under autocast: its codebook is a moving average.

    Args:
        feature_dim: D, 768 for CLIP ViT-L/14.
        codebook: The K codes of d channels; d is small, so that the codes are used evenly.
        width: Hidden width of the encoder, and that of the decoder, one transformer block.
        num_heads: Attention heads of the decoder.
    """

    def __init__(
        self, *, feature_dim: int, codebook: Codebook, width: int = 768, num_heads: int = 12
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.num_codes, code_dim = codebook.codes.shape
        self.codebook = codebook
        self.encoder = _two_layers(feature_dim, width, code_dim)
        self.decoder_embed = nn.Linear(code_dim, width)
        attention = Attention(width, num_heads=num_heads, qkv_bias="qkv")
        self.decoder_block = Block(
            width,
            attention=attention,
            mlp_dim=4 * width,
            window_size=0,
            layer_scale=None,
            drop_path_rate=0.0,
        )
        self.decoder_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.decoder_head = _two_layers(width, width, feature_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct features; in training also move the codes.

        Args:
            features: (B, N, D) of the teacher, any length.

        Returns:
            The loss of the reconstruction and of the encoder's commitment to its codes; for the log
            `cosine` of the reconstruction, `commitment`, `perplexity` and `code_usage` (the share
            of the codes that are used) of this batch: over all processes in training, of this
            process in evaluation.
        """
        vectors = self._vectors(features)  # (B, N, d)
        quantised, counts = self.codebook(vectors.flatten(0, 1))  # (n, d), (K,)
        quantised = quantised.view_as(vectors)
        commitment = F.mse_loss(vectors, quantised)
        # the gradient of the decoder goes straight through to the encoder
        decoded = self._decode(vectors + (quantised - vectors).detach())
        reconstruction = negative_cosine(decoded, features)
        share = counts / counts.sum()
        metrics = {
            "cosine": -reconstruction.detach(),
            "commitment": commitment.detach(),
            "perplexity": torch.special.entr(share).sum().exp(),
            "code_usage": (counts > 0).float().mean(),
        }
        return reconstruction + commitment, metrics

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Name the code, in 0..K-1, of each patch (B, N, D) alone: (B, N) int64."""
        vectors = self._vectors(features)
        return self.codebook.nearest(vectors.flatten(0, 1)).view(vectors.shape[:2])

    def _vectors(self, features: Tensor) -> Tensor:
        # only the direction is reconstructed, so only the direction is seen
        features = F.rms_norm(features.float(), (self.feature_dim,), eps=1e-6)
        vectors = self.encoder(features.to(self.decoder_norm.weight.dtype))
        return F.normalize(vectors.float(), dim=-1)

    def _decode(self, codes: Tensor) -> Tensor:
        tokens = self.decoder_embed(codes.to(self.decoder_norm.weight.dtype))  # (B, N, width)
        tokens = self.decoder_block(tokens)
        return self.decoder_head(self.decoder_norm(tokens))  # (B, N, D)


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


class MaskedTokens(nn.Module):
    """Classify the masked patches into codes of the teacher's features (Table 2a, BEiT v2).

    `accuracy` counts correct codes, `code_usage` is the share of all codes that occur among the
    targets.

    Args:
        tokenizer: A trained one, which is frozen here; the model's `target_dim` is its `num_codes`.
    """

    metric_names: tuple[str, ...] = ("accuracy", "code_usage")
    measure = "probability of the teacher's code"

    def __init__(self, tokenizer: FeatureTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)

    def forward(self, predictions: Tensor, features: Tensor) -> Result:
        """Return the mean cross-entropy of logits (M, K) and the codes of features (M, D)."""
        codes, logits = self.tokenizer.encode(features[None])[0], predictions.float()
        used = torch.zeros(logits.shape[1], device=codes.device).index_fill(0, codes, 1.0)
        accuracy = (logits.detach().argmax(1) == codes).float().mean()
        return F.cross_entropy(logits, codes), {"accuracy": accuracy, "code_usage": used.mean()}

    def agreement(self, predictions: Tensor, features: Tensor) -> Tensor:
        """Return the probabilities (M,) of the teacher's codes; see `Objective`."""
        codes = self.tokenizer.encode(features[None])[0]
        return predictions.float().softmax(1).gather(1, codes[:, None])[:, 0]


def train_tokenizer(config: TokenizerConfig, device: torch.device, *, recipe: str = "") -> None:
    """Train the tokenizer of the teacher's features (Table 2a) on a device."""
    teacher = build_teacher(config.teacher, device)
    seed_everything(config.run.seed, purpose="")
    tokenizer = _build(vars(config), feature_dim=teacher.dim)

    def step(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, metrics = model(teacher(batch["images"]))
        return loss, metrics

    views = Views(size=config.teacher.image_size, mean=teacher.mean, std=teacher.std)
    transform = PretrainTransform(views, scale=config.data.crop_scale)
    find = partial(open_images, config.data.train, transform)
    samples = open_shared(lambda folder: find(indexes=folder), config.run.output)
    teacher_config = config.teacher
    TrainingRun(
        model=tokenizer,
        groups=layer_decay_groups(tokenizer, config.optimizer, depth=0),
        samples=samples,
        step_fn=step,
        config=config,
        device=device,
        presentation=Presentation(
            task="Tokenizer",
            recipe=recipe,
            model=f"{config.num_codes:,} codes for {teacher_config.model} {teacher_config.weights}",
            data=[("train", f"{len(samples):,} images ({display_path(config.data.train)})")],
            first_batch=partial(first_samples, mean=teacher.mean, std=teacher.std),
            sections=lambda: use_of_codes(tokenizer.codebook),
            next_steps=_next_steps,
        ),
    ).start()


def use_of_codes(codebook: Codebook) -> list[Section]:
    """Show how evenly the codes of a trained tokenizer are used: a curve, most used codes first."""
    shares = codebook.usage.float().cpu().sort(descending=True).values
    even = 1 / len(shares)
    points = [(number + 1.0, float(share) / even) for number, share in enumerate(shares)]
    used = int((shares > 0.1 * even).sum())
    return [
        Curves(
            title="Use of the codes",
            x_label="code, the most used first",
            y_label="share, of an even one",
            curves=[Curve(name="share", points=points)],
            text=f"{used:,} of {len(shares):,} codes have more than a tenth of an even share; "
            "1 everywhere would be even.",
        )
    ]


def _next_steps(folder: Path) -> list[NextStep]:
    command = command_to_run(
        "pretrain train",
        "pretrain/train.py",
        "eva_b_patch16_224_tokens_300ep",
        "--tokenizer",
        folder,
        "--output",
        f"{folder}_pretraining",
    )
    return [NextStep(text="Pre-train a ViT to predict these tokens.", command=command)]


def load_tokenizer(source: str, teacher: TeacherConfig | None = None) -> FeatureTokenizer:
    """Read a trained tokenizer: that of the newest checkpoint, in evaluation mode.

    Args:
        source: Output folder of `train_tokenizer.py`.
        teacher: Whose features it is to be used for; warns if its own teacher was another.

    Raises:
        ValueError: If the folder is anything else.
    """
    folder = expand_home(source)
    complete = complete_checkpoints(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) if complete else {}
    if "num_codes" not in config:
        raise ValueError(f"{source} has no complete checkpoint of train_tokenizer.py")
    for name in ("library", "model", "weights") if teacher else ():
        before, current = config["teacher"][name], getattr(teacher, name)
        if Path(before).name != Path(current).name:
            message = "%s was trained with teacher.%s=%s, not %s: its codes may mean nothing"
            logger.warning(message, source, name, before, current)
    state = load_file(complete[-1] / WEIGHTS)
    tokenizer = _build(config, feature_dim=state["encoder.0.weight"].shape[1])
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


def _build(config: Mapping[str, Any], *, feature_dim: int) -> FeatureTokenizer:
    """Build the tokenizer of a `TokenizerConfig` as a dict."""
    return FeatureTokenizer(
        feature_dim=feature_dim,
        codebook=Codebook(num_codes=config["num_codes"], code_dim=config["code_dim"]),
        width=config["width"],
        num_heads=config["num_heads"],
    )

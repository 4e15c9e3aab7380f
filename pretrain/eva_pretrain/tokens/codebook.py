"""A codebook on the unit sphere that follows the vectors it quantises.

Origin: BEiT v2, arXiv:2208.06366 (cosine codes, k-means start, moving averages), and Jukebox,
arXiv:2005.00341 (codes that nothing uses are replaced); own code.

Shapes: n vectors, d channels, K codes.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_KMEANS_STEPS = 10
_CHUNK = 4096  # vectors that are compared with all codes at once: 128 MiB for 8192 codes


class Codebook(nn.Module):
    """Vector quantisation by the cosine, without gradients: the codes are moving averages.

    The first batch of a training starts the codes by k-means. Then each code moves towards the mean
    of the vectors that chose it, and codes that are hardly chosen are put on vectors of the batch.
    In distributed training all processes hold the same codes at all times.

    Args:
        num_codes: K.
        code_dim: d.
        decay: Decay of the moving averages, in (0, 1).
        revive_below: A code is replaced when the moving average of its use falls below this share
            of 1 / K; 0 replaces none.

    Raises:
        ValueError: If an argument is out of range.
    """

    codes: Tensor
    usage: Tensor
    started: Tensor

    def __init__(
        self, *, num_codes: int, code_dim: int, decay: float = 0.99, revive_below: float = 0.01
    ) -> None:
        super().__init__()
        if num_codes < 2 or code_dim < 2:
            raise ValueError(
                f"num_codes and code_dim must be at least 2, got {num_codes} and {code_dim}"
            )
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay must be in (0, 1), got {decay}")
        if not 0.0 <= revive_below < 1.0:
            raise ValueError(f"revive_below must be in [0, 1), got {revive_below}")
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
        sums, counts = self._choices(vectors, index)
        _all_reduce(sums)
        _all_reduce(counts)
        self._move(vectors, sums, counts)
        return quantised, counts

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Find the code with the largest cosine.

        Args:
            vectors: (n, d).

        Returns:
            (n,) int64.
        """
        codes = self.codes.float().t()
        with torch.autocast(vectors.device.type, enabled=False):
            return torch.cat([(v.float() @ codes).argmax(1) for v in vectors.split(_CHUNK)])

    def _choices(self, vectors: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Sum (K, d) and number (K,) of the vectors that chose each code."""
        every = torch.arange(len(self.codes), device=index.device)
        sums = torch.zeros(self.codes.shape, device=index.device)
        counts = torch.zeros(len(self.codes), device=index.device)
        with torch.autocast(vectors.device.type, enabled=False):
            # a matrix product: adding rows by index sums in another order each time on a GPU
            for some, chosen in zip(vectors.split(_CHUNK), index.split(_CHUNK), strict=True):
                one_hot = (chosen == every[:, None]).float()  # (K, n)
                sums += one_hot @ some
                counts += one_hot.sum(1)
        return sums, counts

    def _start(self, vectors: Tensor) -> None:
        """Begin with spherical k-means over the batch of all processes."""
        self.codes.copy_(self._candidates(vectors))
        for _ in range(_KMEANS_STEPS):
            sums, counts = self._choices(vectors, self.nearest(vectors))
            _all_reduce(sums)
            _all_reduce(counts)
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
        chosen = vectors[order[: len(self.codes)].to(vectors.device)].float().contiguous()
        if _distributed():
            dist.broadcast(chosen, src=0)
        return chosen


def _all_reduce(tensor: Tensor) -> None:
    if _distributed():
        dist.all_reduce(tensor)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()

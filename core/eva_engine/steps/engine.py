"""A model in DeepSpeed's engine: optimizer, master weights, skipped steps, average, compilation."""

import copy
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import logger as deepspeed_logger, safe_get_full_fp32_param
from torch import Tensor, nn

from eva_backbone.block import Block
from eva_backbone.checkpoints.run_folders import ADAPTERS
from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.optimizers import build_optimizer
from eva_engine.steps.parameter_groups import ParameterGroup, optimizer_groups
from eva_runs.adapters import Adapters

logger = logging.getLogger(__name__)

LARGEST_BUCKET = 500_000_000  # elements, as in the official settings
_NO_REPORT = 10**9  # steps; the loop writes its own log
_LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # state of a scaler

deepspeed_logger.setLevel(logging.WARNING)
if get_accelerator().device_name() == "cpu":
    # would compile a C++ extension for CPU inference that nothing here uses
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _is_flat(value: Any) -> bool:
    """Return whether a value of an optimizer's state is of weights, and no count of steps."""
    return torch.is_tensor(value) and value.dim() > 0


class TrainingEngine:
    """A model with its optimizer in DeepSpeed's engine.

    Args:
        model: The model; it is moved to the engine's device and, in half precision, converted.
        groups: Parameter groups of the model, with learning-rate factors and weight decays.
        optimizer: Other settings of the optimizer.
        run: Precision, ZeRO stage, batch and accumulation.
        limits: Name of a parameter -> smallest and largest value of its weights after a step.
        adapters: What is saved of a model that has adapters.

    Attributes:
        engine: DeepSpeed's engine; call it for a forward pass.
        module: The model itself.
        parameters: Its parameters by name.
        names: Name of a parameter group -> names of its parameters, in the optimizer's order.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        run: RunConfig,
        limits: Mapping[str, tuple[float, float]] | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self.adapters = adapters
        self.limits = dict(limits or {})
        self.parameters = dict(model.named_parameters())
        groups = [group for group in groups if group.params]  # DeepSpeed leaves out the others
        assert self.limits.keys() <= self.parameters.keys(), self.limits
        parameters = optimizer_groups(model, groups, lr=optimizer.lr)
        names = {parameter: name for name, parameter in self.parameters.items()}
        self.names = {
            group.name: [names[parameter] for parameter in group.params] for group in groups
        }
        self.zero_stage, self.precision = run.zero_stage, run.precision
        self.optimizer_name, self.clip_grad = optimizer.name, optimizer.clip_grad
        trained = sum(parameter.numel() for group in groups for parameter in group.params)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(parameters, optimizer, zero_stage=run.zero_stage),
            config=_deepspeed_config(run, optimizer, trained=trained),
        )
        self.module: nn.Module = self.engine.module
        # ZeRO's has flat tensors of this process, one for each group
        self._base_optimizer = self.optimizer.optimizer if self.zero_stage else self.optimizer
        self._skip = False
        if self.zero_stage:
            # ZeRO leaves a step out on an overflow, which it looks for with fp16 alone
            self._overflows = self.optimizer.has_overflow
            looks = self._overflows if self.precision == "fp16" else lambda *_: False
            self.optimizer.has_overflow = lambda *args: self._skip or looks(*args)
            self.optimizer.check_grad_overflow = True

    @property
    def loss_scale(self) -> float:
        """Factor of the loss; 1 without a loss scale."""
        return float(getattr(self.optimizer, "cur_scale", 1.0)) if self.zero_stage else 1.0

    def set_learning_rate(self, lr: float) -> None:
        """Give each parameter group its share of a learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add gradients; between the micro-batches of a step, count the micro-batch too."""
        self.engine.backward(loss)
        if not last:
            self.engine.step()

    def gradients_are_finite(self) -> bool:
        """Check that all gradients of the step are finite, on every process alike.

        With fp16 the answer is yes: its loss scale takes care of an overflow in the step.
        """
        if self.precision == "fp16":
            return True
        if self.zero_stage:
            return not self._overflows(self.optimizer.partition_gradients)
        return bool(torch.isfinite(self._global_norm()))

    def step(self, *, skip: bool = False) -> tuple[float, bool]:
        """Carry out the optimizer's step, or with `skip` discard the gradients instead.

        Returns:
            Global gradient norm before clipping, and whether the weights were updated.
        """
        norm: Tensor | float | None = float("nan")
        applied = not skip
        if self.zero_stage:
            self._skip = skip
            self.engine.step()
            self._skip = False
            norm = self.engine.get_global_grad_norm()
            applied = not self.optimizer.overflow
            assert not (skip and applied), "another version of DeepSpeed than constraints.txt names"
        elif skip:
            self.engine.zero_grad()
            self.engine.step()  # without gradients: counts the step, updates nothing
        else:
            norm = total = self._global_norm()
            if self.clip_grad:
                torch.nn.utils.clip_grads_with_norm_(self._trained(), self.clip_grad, total)
            self.engine.step()
        if applied:
            self._keep_limits()
        return float("nan" if norm is None else norm), applied

    def master_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the float32 weights that this process trains, flat, by names of parameters."""
        for name, tensor, where in self._optimized():
            yield name, tensor.detach().view(-1)[where]

    def own_part(self, name: str, whole: Tensor) -> Tensor:
        """Cut the part that this process keeps off a flat tensor like a parameter."""
        parameter = self.parameters[name]
        if not hasattr(parameter, "_hp_mapping"):
            return whole
        address = parameter._hp_mapping.lp_fragment_address
        return whole[address.start : address.start + address.numel]

    def full_precision_state(self, before: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Gather copies of weights in float32 and of buffers, on the main process's CPU.

        The same call on all processes; the others get nothing. With adapters nothing of the base.
        What an earlier call has returned, `before`, is written over.
        """
        state = {}
        if distributed.rank() == 0:
            whole = self.module.state_dict()
            for name in self.adapters.names if self.adapters else whole:
                value = whole[name]
                full = value.float() if value.is_floating_point() else value
                buffer = before[name] if before else torch.empty_like(full, device="cpu")
                state[name] = buffer.copy_(full)
        for name, parameter in self.module.named_parameters():
            if hasattr(parameter, "_hp_mapping"):  # which is trained, so that it is in the state
                full = safe_get_full_fp32_param(parameter)
                if state:
                    state[name].copy_(full.view(parameter.shape))
        return state

    def name_of(self, weights: str) -> str:
        """Name the file in a folder for `WEIGHTS` or `EMA_WEIGHTS`: with adapters another one."""
        return ADAPTERS[weights] if self.adapters else weights

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set weights and buffers from what `full_precision_state` gave.

        Raises:
            LookupError: If they are of another model.
        """
        wrong = weights.keys() ^ (
            self.adapters.names if self.adapters else self.module.state_dict()
        )
        if wrong:
            raise LookupError(f"the model or the file lacks {min(wrong)}")
        self.module.load_state_dict(weights, strict=False)
        for name, part in self.master_weights():
            part.copy_(self.own_part(name, weights[name].flatten()))

    def optimizer_state(self) -> dict[str, Any]:
        """Return this process's part of the optimizer's state, by the names of parameters."""
        base = self._base_optimizer
        state = {
            name: {
                key: value.flatten()[where] if _is_flat(value) else value
                for key, value in base.state.get(tensor, {}).items()
            }
            for name, tensor, where in self._optimized()
        }
        scaler = vars(self.optimizer.loss_scaler) if self.zero_stage else {}
        return {
            "state": state,
            "steps": {group["name"]: group.get("step") for group in base.param_groups},
            "loss_scale": {name: scaler[name] for name in _LOSS_SCALE if name in scaler},
        }

    @torch.no_grad()
    def load_optimizer_state(self, *parts: Mapping[str, Any]) -> None:
        """Set the optimizer's state from the parts of all processes that saved it, in their order.

        Raises:
            ValueError: If a parameter was frozen.
            LookupError: If they are of another model; a RuntimeError for other sizes.
        """
        base = self._base_optimizer
        for name, tensor, where in self._optimized():
            pieces = [part["state"][name] for part in parts if name in part["state"]]
            if not pieces:
                raise ValueError(
                    f"{name} was frozen and is to be trained now: freeze it as before, or begin a "
                    "new run from these weights in another output"
                )
            state = base.state[tensor]
            for key, value in pieces[0].items():
                if not _is_flat(value):
                    state[key] = copy.deepcopy(value)
                    continue
                if key not in state:  # zeros fill a group up
                    state[key] = torch.zeros(tensor.shape, dtype=value.dtype, device=tensor.device)
                whole = torch.cat([piece[key] for piece in pieces])
                state[key].view(-1)[where] = self.own_part(name, whole).to(tensor.device)
        for group in base.param_groups:
            if parts[0]["steps"][group["name"]] is not None:
                group["step"] = parts[0]["steps"][group["name"]]
        if self.zero_stage:
            vars(self.optimizer.loss_scaler).update(parts[0]["loss_scale"])

    def _optimized(self) -> Iterator[tuple[str, Tensor, slice]]:
        """Yield each parameter with the optimizer's tensor that it is in, and where, if it is."""
        for names, group in zip(
            self.names.values(), self._base_optimizer.param_groups, strict=True
        ):
            for name in names:
                parameter: Any = self.parameters[name]
                if not self.zero_stage:
                    yield name, parameter, slice(None)
                elif parameter._hp_mapping is not None:
                    address = parameter._hp_mapping.get_hp_fragment_address()
                    where = slice(address.start, address.start + address.numel)
                    yield name, group["params"][0], where

    @torch.no_grad()
    def share_buffers(self) -> None:
        """Give all processes the main one's buffers, such as the statistics of batch norms."""
        if distributed.world_size() > 1:
            for buffer in self.module.buffers():
                torch.distributed.broadcast(buffer, src=0)

    @torch.no_grad()
    def refresh_weights(self) -> None:
        """Set the model's weights from the master weights; the same call on all processes."""
        if self.zero_stage:
            for parameter in self._trained():
                full = safe_get_full_fp32_param(parameter)
                parameter.copy_(full.view(parameter.shape))

    @torch.no_grad()
    def _keep_limits(self) -> None:
        """Set weights beyond their limits to them: those that compute, and the master weights."""
        parts = [self.parameters.items(), self.master_weights()] if self.limits else []
        for name, weights in itertools.chain(*parts):
            if name in self.limits and self.parameters[name].requires_grad:
                weights.clamp_(*self.limits[name])

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def _global_norm(self) -> Tensor:
        grads = [parameter.grad for parameter in self._trained() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(grads)


def _deepspeed_config(
    run: RunConfig, optimizer: OptimizerConfig, *, trained: int
) -> dict[str, Any]:
    # Half precision is too coarse to add up many gradients: 256 + 1 is 256 in bfloat16. DeepSpeed
    # adds them up in float32 where it divides them among the processes as well, in its stage 2.
    in_float32 = run.accumulate > 1 and run.precision != "fp32"
    fp16 = {  # the official values
        "enabled": run.precision == "fp16",
        "loss_scale": 0,
        "initial_scale_power": 16,
        "loss_scale_window": 500,
        "hysteresis": 2,
        "min_loss_scale": 1,
    }
    return {
        "train_micro_batch_size_per_gpu": run.batch_size,
        "gradient_accumulation_steps": run.accumulate,
        # without ZeRO the norm is computed here, before the step
        "gradient_clipping": optimizer.clip_grad if run.zero_stage else 0.0,
        # DeepSpeed allocates the entire bucket, also for a small model
        "zero_optimization": {
            "stage": 2 if in_float32 else run.zero_stage,
            "reduce_bucket_size": min(LARGEST_BUCKET, trained),
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": _NO_REPORT,
        "data_types": {"grad_accum_dtype": "fp32"} if in_float32 else {},
        "bf16": {"enabled": run.precision == "bf16"},
        "fp16": fp16,
    }


_FELT = 0.05  # share of the initial weights at the end of a run


def warn_of_slow_average(decay: float, steps: int) -> None:
    """Warn if a run of so many steps is too short for a moving average; 0 is none."""
    share = decay**steps if decay else 0.0
    if share > _FELT:
        logger.warning(
            "after all %d steps the moving average still holds %.0f %% of the initial weights; "
            "with run.ema_decay=%.4g it would hold %.0f %%",
            *(steps, 100 * share, _FELT ** (1 / steps), 100 * _FELT),
        )


class MovingAverage:
    """Average of the engine's master weights (buffers are taken as they are), by a decay."""

    def __init__(self, engine: TrainingEngine, *, decay: float) -> None:
        self.engine, self.decay = engine, decay
        self._parts = {name: part.clone() for name, part in engine.master_weights()}

    def update(self) -> None:
        """Add the present weights, after a step."""
        masters = [part for _, part in self.engine.master_weights()]
        torch._foreach_lerp_(list(self._parts.values()), masters, 1 - self.decay)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore this process's part from the averages of the entire model.

        Raises:
            LookupError: If they are of another model; a RuntimeError for other sizes.
        """
        for name, part in self._parts.items():
            part.copy_(self.engine.own_part(name, weights[name].flatten()))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model's weights while the block runs."""
        master = {name: part.clone() for name, part in self.engine.master_weights()}
        self._write(self._parts)
        try:
            yield
        finally:
            self._write(master)

    def _write(self, parts: Mapping[str, Tensor]) -> None:
        for name, part in self.engine.master_weights():
            part.copy_(parts[name])
        self.engine.refresh_weights()


BACKEND = "inductor"
_VERSIONS = 64  # of a compiled part: training, evaluation, and batches of one sample have their own


def compile_model(model: nn.Module) -> int:
    """Let the parts of a model be compiled when they are first called, and return their number.

    Stochastic depth computes only the samples that it keeps, whose number is drawn in every step,
    where a graph would break. So a block that drops samples has its attention and its MLP compiled,
    for any number of samples, and other blocks are compiled as one. What cannot be compiled as one
    graph is an error, and does not run uncompiled.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _VERSIONS)
    parts: list[nn.Module] = []
    for block in (module for module in model.modules() if isinstance(module, Block)):
        parts += [block.attn, block.mlp] if block.drop_path.rate else [block]
    for part in parts or [model]:
        part.forward = torch.compile(part.forward, backend=BACKEND, fullgraph=bool(parts))
    logger.info("%d parts of the model are compiled when they are first called", len(parts) or 1)
    return len(parts) or 1

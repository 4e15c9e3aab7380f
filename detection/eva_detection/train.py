"""Training and evaluation of a detector from a LazyConfig."""

import argparse
import contextlib
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.data import build_detection_train_loader
from detectron2.engine import default_argument_parser, default_setup, default_writers, hooks, launch
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from detectron2.utils.registry import locate
from omegaconf import DictConfig
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException

from eva_backbone.registry import resolve_source
from eva_detection.checkpoint import RunCheckpointer, load_initial_weights
from eva_detection.config import check_arguments, check_overrides
from eva_detection.custom_data import (
    add_arguments,
    apply_custom_data,
    check_classes,
    images_per_step,
    scale_lr,
)
from eva_detection.evaluation_predictions import write_results
from eva_detection.hooks import MetricsHistory, ProgressBar, StopOnSignal, leave_together
from eva_detection.interruption import EXIT_RUN_AGAIN, StopSignal, passed_on_to_children
from eva_detection.stream import SAMPLER, build_train_stream, seed_all
from eva_detection.test_time_augmentation import with_test_time_augmentation
from eva_detection.trainer import DetectionTrainer

logger = logging.getLogger(__name__)

_EPILOG = """
Examples:

Fine-tune on COCO with 8 GPUs:
    python detection/train_net.py --num-gpus 8 \\
        --config-file detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1280.py \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/coco

Train on your own data in COCO format (classes, masks or boxes as in the files):
    python detection/train_net.py --train-annotations train.json --train-images photos/train \\
        --val-annotations val.json --val-images photos/val \\
        --config-file detection/configs/custom/cascade_mask_rcnn_vitdet_eva_g_24gb.py \\
        train.init_checkpoint=eva_o365.pth train.output_dir=output/mine

Continue a run after an interruption:
    the same command with --resume; SIGTERM and SIGUSR1 save a checkpoint and exit with code 75

Evaluate:
    python detection/train_net.py --num-gpus 8 --eval-only \\
        --config-file detection/configs/coco/cascade_mask_rcnn_vitdet_eva_g_1536.py \\
        train.init_checkpoint=eva_coco_seg.pth
"""


def evaluate(cfg: DictConfig, model: nn.Module, *, augment: bool = True) -> dict[str, Any]:
    """Score a model on the config's test set.

    Args:
        cfg: The config; `dataloader.test`, `dataloader.evaluator` and `test.aug` are used.
        model: The detector, maybe wrapped for data parallelism.
        augment: Use test-time augmentation if the config has `test.aug`.

    Returns:
        The evaluator's results on the main process (also in `results.json` of the output
        folder), an empty dict on others or without an evaluator.
    """
    if "evaluator" not in cfg.dataloader:
        logger.warning("the config has no dataloader.evaluator: nothing is evaluated")
        return {}
    if augment:
        model = with_test_time_augmentation(cfg, model)
    loader = instantiate(cfg.dataloader.test)
    results = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator)) or {}
    if results and comm.is_main_process():
        print_csv_format(results)
        write_results(results, Path(cfg.train.output_dir) / "results.json")
    return results


def train(cfg: DictConfig, *, resume: bool) -> None:
    """Train, evaluating periodically and at the end, without test-time augmentation.

    Args:
        cfg: The config, as for detectron2's `lazyconfig_train_net.py`; besides,
            `train.amp.precision` ("fp16" or "bf16"), `train.accumulate` (batches of an optimizer
            step), `train.max_bad_images` and `train.progress_bar` are read.
        resume: Continue from the last checkpoint of the output folder if there is one.

    Raises:
        SystemExit: With `EXIT_RUN_AGAIN`, after SIGTERM or SIGUSR1 and a checkpoint.
        FloatingPointError: If a loss is not finite.
        UnreadableImagesError: If more images than `train.max_bad_images` cannot be read.
    """
    stop = StopSignal()
    with stop.listen():
        _train(cfg, resume, stop)


def _train(cfg: DictConfig, resume: bool, stop: StopSignal) -> None:
    model = instantiate(cfg.model)
    logger.info("Model:\n%s", model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    will_resume = resume and RunCheckpointer(model, cfg.train.output_dir).has_checkpoint()
    if not will_resume:
        load_initial_weights(model, cfg.train.init_checkpoint)

    ddp = dict(cfg.train.ddp)
    if cfg.train.device == "cpu":
        ddp["device_ids"] = None
    model = create_ddp_model(model, **ddp)
    amp = cfg.train.amp
    trainer = DetectionTrainer(
        model,
        None,  # the place in the data is in the checkpoint
        optimizer,
        precision=amp.get("precision", "fp16") if amp.enabled else "fp32",
        accumulate=cfg.train.get("accumulate", 1),
        stop=stop,
        max_bad_images=cfg.train.get("max_bad_images", 10),
    )
    checkpointer = RunCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    main_process = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main_process else None
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            MetricsHistory(),
            ProgressBar() if main_process and cfg.train.get("progress_bar", False) else None,
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
            if main_process
            else None,
            StopOnSignal(checkpointer, stop),
            hooks.EvalHook(
                cfg.train.eval_period,
                lambda: leave_together(lambda: evaluate(cfg, model, augment=False)),
            ),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if writers else None,
        ]
    )
    start = 0
    if will_resume:
        checkpointer.resume_or_load("", resume=True)
        start = trainer.iter + 1
        logger.info("Continuing at iteration %d", start)
    trainer.data_loader = _build_loader(cfg, trainer)
    try:
        trainer.train(start, cfg.train.max_iter)
    finally:
        for writer in writers or ():  # also where a signal ends the last evaluation
            writer.close()


def _build_loader(cfg: DictConfig, trainer: DetectionTrainer) -> Any:
    """The training data, from where the trainer's checkpoint ends; seeds the trainer as well."""
    node, saved = cfg.dataloader.train, trainer.restored_stream
    configured = cfg.train.get("seed", -1)
    seed = configured if configured is not None and configured >= 0 else comm.shared_random_seed()
    if saved and configured is not None and 0 <= configured != saved["seed"]:
        logger.warning(
            "train.seed=%d has no effect: the run that continues began with seed %d",
            configured,
            saved["seed"],
        )
    seed = saved.get("seed", seed)
    trainer.seed = seed
    seed_all(seed, SAMPLER)  # samplers without a seed of their own draw one when they are built
    target = node.get("_target_")
    if (locate(target) if isinstance(target, str) else target) is not build_detection_train_loader:
        logger.warning(
            "dataloader.train is not detectron2's build_detection_train_loader: a continued run "
            "begins anew in the data, and an image that cannot be read stops it"
        )
        return instantiate(node)
    arguments = {name: instantiate(node[name]) for name in node if name != "_target_"}
    processes, batch = comm.get_world_size(), arguments["total_batch_size"]
    if saved and (saved["processes"], saved["total_batch_size"]) != (processes, batch):
        seen = trainer.batches_seen * saved["total_batch_size"]
        trainer.batches_seen = -(-seen // batch)
    loader = build_train_stream(
        **arguments,
        seed=seed,
        start=trainer.batches_seen,
        max_bad_images=trainer.max_bad_images,
    )
    if saved and saved != loader.state_dict():
        logger.warning(
            "The order of the data is not that of the uninterrupted run: it had %s, this start %s",
            saved,
            loader.state_dict(),
        )
    return loader


def _load_config(args: argparse.Namespace) -> tuple[DictConfig, list[str]]:
    """The config with own data and overrides, and what to log of it.

    Ends with one sentence where they cannot work.
    """
    if not args.config_file:
        sys.exit("train_net.py: give a recipe with --config-file")
    try:
        cfg = LazyConfig.load(args.config_file)
    except (OSError, SyntaxError, ImportError, ValueError) as error:
        sys.exit(f"train_net.py: --config-file {args.config_file} cannot be read: {error}")
    try:
        check_overrides(cfg, args.opts)
        scales = getattr(args, "scale_lr", False)
        reference = images_per_step(cfg) if scales else 0
        notes = apply_custom_data(cfg, args)
        cfg = LazyConfig.apply_overrides(cfg, args.opts)
        check_arguments(cfg, ["model", "optimizer", "lr_multiplier"])
        check_classes(cfg)
        if scales:
            notes.append(scale_lr(cfg, reference=reference, overrides=args.opts))
        continues = args.resume and (Path(cfg.train.output_dir) / "last_checkpoint").exists()
        if cfg.train.init_checkpoint and not continues:
            resolve_source(cfg.train.init_checkpoint)  # before models and data sets are built
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"train_net.py: {error}")
    return cfg, notes


def run(args: argparse.Namespace) -> None:
    """One process of a run; `args` are those of `main`."""
    cfg, notes = _load_config(args)
    default_setup(cfg, args)
    for name in ("eva_backbone", "eva_detection"):
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name=name)
    for note in notes:
        logger.info(note)
    # inside detectron2: poolers, anchors, masks; nothing that a user could do about
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    if not args.eval_only:
        train(cfg, resume=args.resume)
        return
    model = instantiate(cfg.model)
    try:
        with_test_time_augmentation(cfg, model)  # before the weights are read
    except ValueError as error:
        sys.exit(f"train_net.py: test.aug: {error}")
    model.to(cfg.train.device)
    load_initial_weights(model, cfg.train.init_checkpoint, complete=True)
    evaluate(cfg, model)


def main() -> None:
    """Command line of `train_net.py`; exits with 75 if a signal stopped it after a checkpoint."""
    parser = default_argument_parser(epilog=_EPILOG)
    add_arguments(parser)
    args = parser.parse_args()
    many = args.num_gpus * args.num_machines > 1
    if many:
        _load_config(args)  # what is wrong with it is said once, not by every process
    with passed_on_to_children() if many else contextlib.nullcontext():
        try:
            launch(
                run,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
            )
        except KeyboardInterrupt:
            sys.exit(130)  # as a shell reports Ctrl-C; the log says where training stopped
        except ProcessExitedException as error:
            if error.exit_code != EXIT_RUN_AGAIN:
                raise
            sys.exit(EXIT_RUN_AGAIN)

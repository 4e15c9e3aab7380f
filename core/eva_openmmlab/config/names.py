"""Names that the runner and the loaders read although a config need not have them.

They are written down so that a slip in `--cfg-options` is found without importing PyTorch; a test
compares them with mmengine's and PyTorch's signatures. So are values that cannot work.
"""

RUNNER = frozenset(
    {
        *("model", "work_dir", "train_dataloader", "val_dataloader", "test_dataloader"),
        *("train_cfg", "val_cfg", "test_cfg", "auto_scale_lr", "optim_wrapper", "param_scheduler"),
        *("val_evaluator", "test_evaluator", "default_hooks", "custom_hooks", "data_preprocessor"),
        *("load_from", "resume", "launcher", "env_cfg", "log_processor", "log_level"),
        *("visualizer", "default_scope", "randomness", "experiment_name"),
    }
)
# read from the config itself
RUNNER_CONFIG = frozenset(
    {
        *("activation_checkpointing", "compile", "efficient_conv_bn_eval"),
        *("find_unused_parameters", "model_wrapper_cfg", "sync_bn"),
    }
)
RANDOMNESS = frozenset({"seed", "deterministic", "diff_rank_seed"})
AUTO_SCALE_LR = frozenset({"enable", "base_batch_size"})
LOADING = frozenset(
    {
        *("dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "num_workers"),
        *("collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn", "generator"),
        *("multiprocessing_context", "prefetch_factor", "persistent_workers"),
        *("pin_memory_device", "in_order"),
    }
)
# settings that are integers -> the least; and numbers that are not negative
INTEGERS = {
    **dict.fromkeys(("train_cfg.max_iters", "train_cfg.val_interval"), 1),
    **{f"{part}_dataloader.batch_size": 1 for part in ("train", "val", "test")},
    **{f"{part}_dataloader.num_workers": 0 for part in ("train", "val", "test")},
    "default_hooks.checkpoint.interval": -1,
    "default_hooks.logger.interval": 1,
    "optim_wrapper.accumulative_counts": 1,
}
NUMBERS = frozenset({"optim_wrapper.optimizer.lr", "optim_wrapper.optimizer.weight_decay"})

"""One optimizer step: engine, schedule, moving average, non-finite values, compilation."""

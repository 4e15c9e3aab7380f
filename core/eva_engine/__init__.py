"""One training run on DeepSpeed's engine, for projects that train with a loop of our own."""

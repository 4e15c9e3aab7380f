"""The order of the training data, the processes that load it, and batches on their way."""

"""What the demos and predictors of all projects share, besides `eva_data.inputs`."""

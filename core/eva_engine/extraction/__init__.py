"""Features of many pictures or texts into files, whatever model computes them."""

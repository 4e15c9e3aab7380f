"""Kinetics-722, made of Kinetics-400, 600 and 700."""

"""Kinetics-722 and the classes of Kinetics."""

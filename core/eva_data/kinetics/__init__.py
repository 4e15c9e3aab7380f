"""The classes of Kinetics-400, 600, 700, 710 and 722."""

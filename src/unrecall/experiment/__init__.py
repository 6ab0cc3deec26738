"""A whole experiment, the tuning before it, and grids of many."""

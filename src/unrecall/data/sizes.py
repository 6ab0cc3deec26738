"""How many examples a comparison needs, and how many it looks at."""

OTHERS = 19
"""Others that a person, or a class, is ranked among: with fewer the first place isn't worth 5 %."""
FEWEST_TO_TUNE_ON = 4
"""Examples of which half can serve tuning and half the audit."""
SAMPLE = 10_000
"""Examples of retain, and of the test set, on which models are looked at: they tell a share to a point."""

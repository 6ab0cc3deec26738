"""The global generators, seeded: of PyTorch on every device, of NumPy and of Python."""

import random

import numpy as np
import torch


def reseed(seed: int) -> None:
    """Starts every global generator from `seed`; whoever calls it puts their states back."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed would also queue a seed, with a formatted stack trace, for every accelerator not yet in use.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)

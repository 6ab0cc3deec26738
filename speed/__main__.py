"""Runs every race: `make speed`, or `python -m speed NAME...`."""

import importlib
import os
import sys

import torch

ALL = (
    "startup",
    "loop",
    "data",
    "importance",
    "scrub",
    "gradient_norms",
    "solvers",
    "contribution",
    "residual_knowledge",
    "membership",
    "ensemble",
    "language",
    "lora",
)


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    print(f"{torch.get_num_threads()} threads; CPU seconds; ratio = rival's / ours; medians of alternating runs")
    for name in sys.argv[1:] or ALL:
        for result in importlib.import_module(f"speed.{name}").run():
            print(result.line(), flush=True)


main()

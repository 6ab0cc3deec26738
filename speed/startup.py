"""`unrecall list` against importing torch, each in a fresh process; aimed at: under 0.5 s."""

import subprocess
import sys
import time

from speed.clock import Race, race


def run() -> list[Race]:
    def spawn(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    listing = "from unrecall.cli.app import main; main(['list'])"
    times = race(lambda: spawn(listing), lambda: spawn("import torch"), rounds=5, clock=time.perf_counter)
    return [Race("unrecall list", *times, "import torch", "ours < 0.5 s")]

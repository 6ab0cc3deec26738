"""Solves with per-example gradients, all at once, against loops over examples; aimed at: at least 10 times faster."""

import torch

from speed.clock import Race, race
from unrecall.data.examples import Selection
from unrecall.models.jacobian import Bound, jacobian
from unrecall.nn.gram import damped_inverse
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import small_cnn

EXAMPLES, DAMPING = 512, 1.0


def run() -> list[Race]:
    """WoodFisher's inverse Hessian times a gradient: one solve, or a rank-1 update an example."""
    digits, model = Digits().make(), small_cnn().eval()
    task, examples = digits.task, Selection(digits.request.retain, range(EXAMPLES))
    weights = [p for p in model.parameters() if p.requires_grad]
    vector = torch.ones(sum(p.numel() for p in weights))

    def gradient(i: int) -> torch.Tensor:
        loss = task.rows(model, task.collate([examples[i]])).losses().mean()
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])

    def at_once() -> torch.Tensor:
        return damped_inverse(jacobian(model, task, examples, Bound("race", 4.0)), vector, DAMPING)

    def updates(rows: list[torch.Tensor]) -> torch.Tensor:
        moved: list[tuple[torch.Tensor, float]] = []
        result = vector.double() / DAMPING
        for row in rows:
            own = row.double()
            image = own / DAMPING
            for before, below in moved:
                image -= (before @ own) / below * before
            below = len(rows) + float(own @ image)
            result -= (own @ result) / below * image
            moved.append((image, below))
        return result

    def loop() -> torch.Tensor:
        return updates([gradient(i) for i in range(EXAMPLES)])

    gap = float((at_once() - loop()).abs().max())
    times = race(at_once, loop, rounds=3)
    rival, note = "loop of rank-1 updates", f"differ by {gap:.0e}"
    return [Race(f"influence, {EXAMPLES} digits", *times, rival, "ratio >= 10", note)]

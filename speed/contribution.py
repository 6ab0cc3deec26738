"""Contribution vectors of a batch from one backward pass, and neighbours from one product, each against a loop."""

import torch
import torch.nn.functional as F

from speed.clock import Race, race
from unrecall.models.contribution import contributions, nearest
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import small_cnn
from unrecall.training.randomness import seeded

BATCH, NEIGHBOURS = 128, 8


def run() -> list[Race]:
    """At what enters the head, the default; and at what leaves the three ReLUs."""
    return [_contributions((), "11"), _contributions(("3", "6", "9"), "3 6 9"), _nearest()]


def _contributions(layers: tuple[str, ...], watched: str) -> Race:
    digits, model = Digits().make(), small_cnn().eval()
    task = digits.task
    batch = task.collate([digits.request.retain[i] for i in range(BATCH)])
    results: dict[str, torch.Tensor] = {}

    def at_once() -> None:
        results["ours"] = contributions(model, task, batch, layers).vectors

    def loop() -> None:
        vectors = []
        for x, y in zip(batch["inputs"], batch["targets"], strict=True):
            h, activations = x[None], []
            for name, module in model.named_children():
                h = module(h)
                if name in watched.split():
                    activations.append(h)
            gradients = torch.autograd.grad(h[0, y], activations)
            pairs = zip(_deep(activations), _deep(gradients), strict=True)
            parts = [(activation * gradient).flatten(2) for activation, gradient in pairs]
            vectors.append(torch.cat([part.sum(2).detach() for part in parts], 1))
        results["loop"] = torch.cat(vectors)

    times = race(at_once, loop, rounds=5)
    gap = float((results["ours"] - results["loop"]).abs().max())
    place = f"{len(layers)} layers" if layers else "at the head"
    return Race(
        f"contributions, {BATCH} digits, {place}",
        *times,
        "loop, batch of one",
        "ratio > 1",
        f"differ by {gap:.0e}",
    )


def _deep(tensors: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Vectors as activations of one place."""
    return [tensor if tensor.ndim == 4 else tensor[:, :, None, None] for tensor in tensors]


def _nearest() -> Race:
    """For every example of a batch, its neighbours in another, in a space of 768 units."""
    queries, vectors = (torch.randn(BATCH, 768, generator=seeded(i)) for i in range(2))
    results: dict[str, torch.Tensor] = {}

    def product() -> None:
        results["ours"] = nearest(queries, vectors, NEIGHBOURS)

    def loop() -> None:
        near = [F.cosine_similarity(query[None], vectors).topk(NEIGHBOURS).indices for query in queries]
        results["loop"] = torch.stack(near)

    times = race(product, loop, rounds=9)
    share = float((results["ours"] == results["loop"]).float().mean())
    name = f"{NEIGHBOURS} neighbours of {BATCH} among {BATCH}"
    return Race(name, *times, "loop over queries", "ratio > 1", f"{share:.1%} of them the same")

"""Contribution vectors of a batch from one backward pass, and neighbours from one product, each against a loop."""

from __future__ import annotations

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
    found: dict[str, torch.Tensor] = {}

    def at_once() -> None:
        found["ours"] = contributions(model, task, batch, layers).vectors

    def loop() -> None:
        vectors = []
        for x, y in zip(batch["inputs"], batch["targets"], strict=True):
            h, kept = x[None], []
            for name, module in model.named_children():
                h = module(h)
                if name in watched.split():
                    kept.append(h)
            gradients = torch.autograd.grad(h[0, y], kept)
            parts = [(one * gradient).flatten(2) for one, gradient in zip(_deep(kept), _deep(gradients), strict=True)]
            vectors.append(torch.cat([part.sum(2).detach() for part in parts], 1))
        found["loop"] = torch.cat(vectors)

    mine, theirs = race(at_once, loop, rounds=5)
    gap = float((found["ours"] - found["loop"]).abs().max())
    place = f"{len(layers)} layers" if layers else "at the head"
    return Race(
        f"contributions, {BATCH} digits, {place}",
        mine,
        theirs,
        "loop, batch of one",
        "ratio > 1",
        f"differ by {gap:.0e}",
    )


def _deep(tensors: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Vectors as activations of one place."""
    return [one if one.ndim == 4 else one[:, :, None, None] for one in tensors]


def _nearest() -> Race:
    """For every example of a batch, its neighbours in another, in a space of 768 units."""
    queries, vectors = (torch.randn(BATCH, 768, generator=seeded(i)) for i in range(2))
    found: dict[str, torch.Tensor] = {}

    def product() -> None:
        found["ours"] = nearest(queries, vectors, NEIGHBOURS)

    def loop() -> None:
        near = [F.cosine_similarity(query[None], vectors).topk(NEIGHBOURS).indices for query in queries]
        found["loop"] = torch.stack(near)

    mine, theirs = race(product, loop, rounds=9)
    share = float((found["ours"] == found["loop"]).float().mean())
    name = f"{NEIGHBOURS} neighbours of {BATCH} among {BATCH}"
    return Race(name, mine, theirs, "loop over queries", "ratio > 1", f"{share:.1%} of them the same")

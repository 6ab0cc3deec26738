"""By hand: SCIF's step against dense linear algebra, which weights it moves, and what it draws."""

import torch

from tests.worlds import CPU, World, network
from tests.worlds.interactions import Interactions, by_user, dense, factors, pairs_of, vector_of
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.methods.scif import SCIF, of_users_and_items
from unrecall.models.importance import trainable
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

TASK, MODEL = Interactions(4), factors(3, 4)
EXACT = SCIF(damping=2.0, iterations=500, tolerance=1e-7)


def change_by(method: SCIF, request: Request, seed: int = 0) -> torch.Tensor:
    result = method.unlearn(MODEL, Job(request, TASK, seeded(seed), CPU))
    return vector_of(result) - vector_of(MODEL)


def expected(request: Request, kept: list[dict[str, int]], damping: float) -> torch.Tensor:
    """- ((H + damping I)^-1 g) / |D_r|."""
    retain, forget = list(iterate(request.retain)), list(iterate(request.forget))
    gradient = (dense(MODEL, TASK, kept)[0] - dense(MODEL, TASK, forget)[0]) / len(kept)
    hessian = dense(MODEL, TASK, retain)[1] / len(retain)
    return -torch.linalg.solve(hessian + damping * torch.eye(len(hessian)), gradient) / len(retain)


def test_the_step_by_dense_algebra() -> None:
    """Two for each forget example are the two that user 0 has left: nobody else is drawn."""
    request = by_user()
    change = change_by(SCIF(damping=2.0, iterations=500, tolerance=1e-7, retained=2), request)
    assert torch.allclose(change, expected(request, pairs_of((0, 1), (0, 2)), 2.0), atol=1e-7)
    assert float(change.norm()) > 1e-3


def test_all_others_are_there_by_default() -> None:
    request = by_user()
    assert torch.allclose(change_by(EXACT, request), expected(request, list(iterate(request.retain)), 2.0), atol=1e-7)


def test_one_other_is_drawn() -> None:
    request, method = by_user(), SCIF(damping=2.0, iterations=500, tolerance=1e-7, retained=3)
    cleaned, others = pairs_of((0, 1), (0, 2)), pairs_of((1, 0), (1, 3), (2, 2), (2, 3))
    candidates = [expected(request, [*cleaned, other], 2.0) for other in others]
    drawn = set()
    for seed in range(6):
        change = change_by(method, request, seed)
        (place,) = [i for i, candidate in enumerate(candidates) if torch.allclose(change, candidate, atol=1e-7)]
        drawn.add(place)
    assert len(drawn) > 1


def test_step_and_clip() -> None:
    request = by_user()
    one, ten = change_by(EXACT, request), change_by(EXACT.scaled(10.0), request)
    assert torch.allclose(ten, 10 * one, atol=1e-6)
    length = float(ten.norm())
    limited = change_by(SCIF(step=10.0, damping=2.0, iterations=500, tolerance=1e-7, clip=length / 4), request)
    assert torch.allclose(limited, ten / 4, atol=1e-6)
    free = change_by(SCIF(step=10.0, damping=2.0, iterations=500, tolerance=1e-7, clip=2 * length), request)
    assert torch.equal(free, ten)


def test_it_moves_the_last_layer_alone_where_there_are_no_embeddings(samples_world: World) -> None:
    w = samples_world
    result = SCIF(step=100.0).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    pairs = zip(w.original.named_parameters(), result.parameters(), strict=True)
    assert {name for (name, before), after in pairs if not torch.equal(before, after)} == {"6.weight", "6.bias"}


def test_embeddings_and_the_last_layer_are_chosen_once(text_world: World) -> None:
    """The head of that model is tied to its embeddings."""
    w = text_world
    assert list(of_users_and_items(w.original, w.task, w.request.forget)) == ["model.embed_tokens.weight"]
    assert list(of_users_and_items(MODEL, TASK, by_user().forget)) == ["users.weight", "past.weight", "items.weight"]


def test_all_weights_are_chosen_where_those_are_frozen(samples_world: World) -> None:
    w, model = samples_world, network()
    model[6].requires_grad_(False)
    assert list(of_users_and_items(model, w.task, w.request.forget)) == list(trainable(model))


def test_it_says_what_it_took() -> None:
    session = Session(device="cpu")
    SCIF(damping=2.0, iterations=3).unlearn(MODEL, Job(by_user(), TASK, seeded(0), session))
    (effort,) = session.efforts
    assert effort.passes == 6 + 1 + 3 * 6, "g over retain and forget, and three products over retain"

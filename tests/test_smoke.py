from tests.conftest import CPU, World
from unrecall.engine import seeded
from unrecall.methods.rurk import RURK
from unrecall.observe import accuracy


def test_world_is_learned_and_rurk_runs(samples_world: World) -> None:
    w = samples_world
    assert accuracy(w.original, w.task, w.request.forget).mean() > 0.95
    unlearned = RURK(lambda_f=0.3, lambda_a=0.3).unlearn(w.original, w.request, w.task, seeded(0), CPU)
    assert accuracy(unlearned, w.task, w.request.retain).mean() > 0.8
    print(accuracy(unlearned, w.task, w.request.forget).mean(), [accuracy(m, w.task, w.request.forget).mean() for m in w.retrained], [accuracy(m, w.task, w.request.test).mean() for m in w.retrained])

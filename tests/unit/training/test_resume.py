"""A kill at any moment leaves a run of the loop that ends with the same weights."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from tests.unit.training.test_loop import DATA, RECIPE, TASK, Killed, classify, noisy, same, trained
from tests.worlds import CPU, network
from unrecall.errors import BadInput, Diverged
from unrecall.training.loop import Batches, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_killed_at_any_step_and_resumed_gives_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    def run(killed_at: int | None, folder: Path | None) -> nn.Module:
        generator = seeded(5)
        phase, model = noisy(killed_at, generator)
        recipe = replace(phase.fit, optimizer=optimizer, schedule="cosine", lr=0.01, epochs=4)  # type: ignore[arg-type]
        session = Session(folder=folder, device="cpu", every=0, name="part")
        fit(model, TASK, replace(phase, fit=recipe), generator, session)
        assert session.efforts[-1].steps == 12 == len(session.efforts[-1].losses)
        assert session.efforts[-1].passes == 4 * 45 + 6 * 20
        return model

    whole = run(None, None)
    for step in range(12):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            run(step, folder)
        assert bool(list(folder.glob("*.ckpt"))) == (step >= 3), "a state is kept after each epoch"
        assert same(run(None, folder), whole)
        assert not list(folder.glob("*")), "and removed at the end"


def test_a_run_may_be_killed_more_than_once(tmp_path: Path) -> None:
    session = Session(folder=tmp_path, device="cpu", every=0)
    for killed_at in (4, 4, 0, None):
        generator = seeded(5)
        phase, model = noisy(killed_at, generator)
        if killed_at is None:
            fit(model, TASK, phase, generator, session)
        else:
            with pytest.raises(Killed):
                fit(model, TASK, phase, generator, session)
    assert session.efforts[-1].steps == 9
    generator = seeded(5)
    phase, whole = noisy(None, generator)
    fit(whole, TASK, phase, generator, CPU)
    assert same(model, whole)


def test_state_of_another_run_is_not_taken_up(tmp_path: Path) -> None:
    generator = seeded(5)
    phase, model = noisy(4, generator)
    session = Session(folder=tmp_path, device="cpu", every=0)
    with pytest.raises(Killed):
        fit(model, TASK, phase, generator, session)
    for recipe, seed, start in ((RECIPE, 6, 0), (replace(RECIPE, lr=0.04), 5, 0), (RECIPE, 5, 1)):
        fit(other := network(seed=start), TASK, Phase(classify, {"all": DATA}, recipe), seeded(seed), session)
        assert same(other, trained(recipe, seed, network(seed=start)))


def test_time_before_a_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("unrecall.training.loop.time.perf_counter", lambda: float(next(clock)))
    session = Session(folder=tmp_path, device="cpu", every=0)
    for killed_at in (7, None):
        generator = seeded(5)
        phase, model = noisy(killed_at, generator)
        if killed_at:
            with pytest.raises(Killed):
                fit(model, TASK, phase, generator, session)
        else:
            assert fit(model, TASK, phase, generator, session).seconds >= 9


def test_damaged_state_is_one_clear_error(tmp_path: Path) -> None:
    generator = seeded(5)
    phase, model = noisy(4, generator)
    session = Session(folder=tmp_path, device="cpu", every=0)
    with pytest.raises(Killed):
        fit(model, TASK, phase, generator, session)
    (path,) = tmp_path.glob("*.ckpt")
    for damaged in (path.read_bytes()[:100], b"", b"\x80\x04cos\nsystem\n."):
        path.write_bytes(damaged)
        generator = seeded(5)
        phase, model = noisy(None, generator)
        with pytest.raises(BadInput, match="damaged file"):
            fit(model, TASK, phase, generator, session)


def test_divergence_names_the_step_and_the_last_good_state(tmp_path: Path) -> None:
    def explode(at: int) -> Phase:
        taken = 0

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            nonlocal taken
            taken += 1
            return classify(model, batches) * (math.nan if taken > at else 1)

        return Phase(loss, {"all": DATA}, RECIPE)

    session = Session(folder=tmp_path, device="cpu", every=0)
    with pytest.raises(Diverged, match=r"at step 7.*last good state, at step 6, is in .*\.ckpt") as caught:
        fit(network(), TASK, explode(7), seeded(0), session)
    assert caught.value.step == 7
    with pytest.raises(Diverged, match=r"at step 1\. The model given is untouched"):
        fit(network(), TASK, explode(1), seeded(0), CPU)

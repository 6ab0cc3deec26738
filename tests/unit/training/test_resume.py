"""A kill at any moment leaves a run of the loop that ends with the same weights."""

import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from tests.unit.training.test_loop import DATA, RECIPE, TASK, Killed, classify, noisy, same, trained
from tests.worlds import CPU, network
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.errors import Diverged
from unrecall.tasks import Classification
from unrecall.training.cost import metered
from unrecall.training.loop import Batches, Loss, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


@pytest.mark.parametrize(
    ("optimizer", "more"), [("sgd", {}), ("adam", {"accumulate": 3}), ("adamw", {"warmup": 5, "accumulate": 2})]
)
def test_killed_at_any_step_and_resumed_gives_the_same_weights(
    optimizer: str, more: dict[str, Any], tmp_path: Path
) -> None:
    def run(killed_at: int | None, session: Session) -> nn.Module:
        generator = seeded(5)
        phase, model = noisy(killed_at, generator)
        recipe = replace(phase.fit, optimizer=optimizer, schedule="cosine", lr=0.01, epochs=4, **more)  # type: ignore[arg-type]
        fit(model, TASK, replace(phase, fit=recipe), generator, session)
        assert session.efforts[-1].steps == 12 == len(session.efforts[-1].losses)
        assert session.efforts[-1].passes == 4 * 45 + 6 * 20
        return model

    whole = run(None, Session(device="cpu"))
    for step in range(12):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            run(step, Session(folder=folder, device="cpu", every=0, name="part"))
        assert bool(list(folder.glob("*.ckpt"))) == (step >= 3), "a state is kept after each epoch"
        session = Session(folder=folder, device="cpu", every=0, name="part")
        assert same(run(None, session), whole)
        session.drop_states()
        assert not list(folder.glob("*")), "and removed once the result is kept"


def test_the_end_of_a_run_removes_the_states_that_killed_ones_left(tmp_path: Path) -> None:
    (tmp_path / f"unlearned.key.{'0' * 16}.ckpt").write_bytes(b"of a training whose result is kept")
    (tmp_path / "unlearned.safetensors").write_bytes(b"the result")
    Session(folder=tmp_path, device="cpu").end()
    assert [path.name for path in tmp_path.iterdir()] == ["unlearned.safetensors"]


@pytest.mark.parametrize("place", ["folder", "link", "loop"])
def test_whatever_stands_in_the_place_of_a_state_gives_way(place: str, tmp_path: Path) -> None:
    session = Session(folder=tmp_path, device="cpu", every=0)
    generator = seeded(5)
    phase, model = noisy(4, generator)
    with pytest.raises(Killed):
        fit(model, TASK, phase, generator, session)
    (state,) = tmp_path.glob("*.ckpt")
    state.unlink()
    if place == "folder":
        (state / "inside").mkdir(parents=True)
    else:
        state.symlink_to("nowhere" if place == "link" else state.name)
    generator = seeded(5)
    phase, again = noisy(None, generator)
    said = pytest.warns(UserWarning, match="damaged, so this training starts anew")
    with said if place == "folder" else nullcontext():
        fit(again, TASK, phase, generator, session)
    generator = seeded(5)
    phase, whole = noisy(None, generator)
    fit(whole, TASK, phase, generator, CPU)
    assert same(again, whole)


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


class Doubled(Classification):
    """Reads each picture at twice its brightness."""

    def collate(self, items: Sequence[Any]) -> Batch:
        batch = super().collate(items)
        return batch | {"inputs": 2 * batch["inputs"]}


def test_state_of_another_task_is_not_taken_up(tmp_path: Path) -> None:
    generator = seeded(5)
    phase, model = noisy(4, generator)
    session = Session(folder=tmp_path, device="cpu", every=0)
    with pytest.raises(Killed):
        fit(model, TASK, phase, generator, session)
    ends = []
    for place in (session, CPU):
        generator = seeded(5)
        phase, model = noisy(None, generator)
        fit(model, Doubled(), phase, generator, place)
        ends.append(model)
    assert same(*ends)


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
            with metered(session) as meter:
                effort = fit(model, TASK, phase, generator, session)
            assert effort.seconds >= 9
            assert effort.resumed
            assert meter.cost.seconds is None, "no clock of one run measured all of it"
            assert meter.cost.steps == effort.steps


def test_a_damaged_state_is_named_and_the_training_starts_anew(tmp_path: Path) -> None:
    session = Session(folder=tmp_path, device="cpu", every=0)

    def run(killed_at: int | None, where: Session) -> nn.Module:
        generator = seeded(5)
        phase, model = noisy(killed_at, generator)
        fit(model, TASK, phase, generator, where)
        return model

    whole = run(None, Session(device="cpu"))
    for damage in (
        lambda data: data[:100],
        lambda _: b"",
        lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:],
    ):
        with pytest.raises(Killed):
            run(4, session)
        (path,) = tmp_path.glob("*.ckpt")
        path.write_bytes(damage(path.read_bytes()))
        with pytest.warns(UserWarning, match=rf"{path.name}: damaged, so this training starts anew"):
            assert same(run(None, session), whole)
        session.drop_states()


@pytest.mark.parametrize("when", ["listed", "read"])
def test_a_state_that_another_process_takes_away_is_passed_over(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes train the same in one folder, and each removes the states that are older than its own."""
    session = Session(folder=tmp_path, device="cpu", every=0)

    def run(killed_at: int | None, where: Session) -> nn.Module:
        generator = seeded(5)
        phase, model = noisy(killed_at, generator)
        fit(model, TASK, phase, generator, where)
        return model

    def sound_and_gone(path: Path) -> bool:
        path.unlink()
        return True

    with pytest.raises(Killed):
        run(4, session)
    (state,) = tmp_path.glob("*.ckpt")
    if when == "listed":
        state.unlink()
        state.symlink_to(tmp_path / "gone")  # listed, and not there any more
    else:
        monkeypatch.setattr("unrecall.training.resume.intact", sound_and_gone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(run(None, session), run(None, Session(device="cpu")))


@pytest.mark.parametrize("what", ["data", "loss", "key"])
def test_a_state_is_resumed_by_the_same_training_alone(what: str, tmp_path: Path) -> None:
    session, calls = Session(folder=tmp_path, device="cpu", every=0), list[int]()

    def doubled(model: nn.Module, batches: Batches) -> Tensor:
        return 2 * TASK.rows(model, batches["data"]).losses().mean()

    def plain(model: nn.Module, batches: Batches) -> Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise Killed
        return TASK.rows(model, batches["data"]).losses().mean()

    def run(loss: Loss, examples: Examples, session: Session) -> nn.Module:
        model = network(seed=3)
        fit(model, TASK, Phase(loss, {"data": examples}, replace(RECIPE, epochs=3)), seeded(5), session)
        return model

    with pytest.raises(Killed):
        run(plain, DATA, session)
    assert list(tmp_path.glob("*.ckpt"))
    data = [(1 - x, y) for x, y in DATA] if what == "data" else DATA
    again, loss = replace(session, key="other") if what == "key" else session, doubled if what == "loss" else plain
    assert same(run(loss, data, again), run(loss, data, Session(device="cpu")))
    assert len(list(tmp_path.glob("*.ckpt"))) == 2, "the state of the other training is left as it was"


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

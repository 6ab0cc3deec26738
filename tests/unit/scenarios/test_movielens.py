"""MovieLens on a folder made here: what is read, what is asked for, what is held back, and what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.models.recommenders import NOBODY
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.movielens import PUSHED, MovieLens, spammed
from unrecall.scenarios.ratings import Rating, RatingLog, cored, read_log
from unrecall.scenarios.recommenders import DeletionRule, Draw, Interaction, examples, parts_of
from unrecall.tasks import Recommendation
from unrecall.training.session import Session

CPU = Session(device="cpu")
MOVIES = ["movieId,title,genres", *(f'{m},"Film, {m}",{"Horror|War" if m % 3 == 0 else "Drama"}' for m in range(1, 31))]


def folder(path: Path, *lines: str, movies: list[str] = MOVIES) -> Path:
    """Twelve users who rated twenty of thirty films each, newest first, every fifth of them badly; and other lines."""
    ratings = ["userid,movieid,rating,timestamp"]
    for user in range(1, 13):
        for k in range(20):
            film = 1 + (7 * user + k) % 30
            ratings.append(f"{user},{film},{2.0 if k % 5 == 4 else 4.5},{1000 * user - k}")
    (path / "ratings.csv").write_text("\n".join([*ratings, *lines]) + "\n")
    (path / "movies.csv").write_text("\n".join(movies) + "\n")
    return path


def made(path: Path, **settings: Any) -> Scenario:
    given: dict[str, Any] = {"data": str(folder(path)), "core": 2, "fraction": 0.1, "width": 8, "references": 1}
    return MovieLens(**(given | settings)).make()


def of(scenario: Scenario, split: str) -> list[dict[str, Any]]:
    return list(iterate(scenario.request[split]))  # type: ignore[index]


def test_what_is_liked_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    log = read_log(folder(tmp_path), 4.0, 2)
    assert len(log.users) == 12
    assert len(log.interactions) == 12 * 16
    assert [i.place for i in log.interactions] == list(range(12 * 16))
    first = [i.item for i in log.interactions if i.user == 0]
    films = [1 + (7 + k) % 30 for k in range(20) if k % 5 != 4]
    assert [log.titles[item] for item in first] == [f"Film, {film}" for film in reversed(films)]
    assert log.genres[first[-1]] == {"Drama"}


def test_of_a_film_rated_twice_the_last_rating_counts(tmp_path: Path) -> None:
    before = len(read_log(folder(tmp_path), 4.0, 2).interactions)
    log = read_log(folder(tmp_path, "1,8,1.0,5000", "1,9,5.0,5000", "1,9,1.0,1"), 4.0, 2)
    assert len(log.interactions) == before - 1, "8 is no longer liked, and 9 counts once"


def test_the_core_is_what_is_left_when_nothing_has_too_few() -> None:
    """User c falls with film 3, which two have taken; then film 2 has too few, and user b."""
    ratings = [Rating(user, movie, 0) for user, movie in ("a1", "a4", "b1", "b2", "c2", "c3", "d1", "d4")]
    assert {f"{r.user}{r.movie}" for r in cored(ratings, 2)} == {"a1", "a4", "d1", "d4"}
    assert cored(ratings, 3) == []


def test_parts_by_hand() -> None:
    """User 0 took items 0 to 6, user 1 items 0 to 3, in turn; user 0 wants even ones forgotten."""
    log = [Interaction(10 * user + item, user, item) for user, last in ((0, 6), (1, 3)) for item in range(last + 1)]
    parts = parts_of(log, DeletionRule([0], lambda i: i.item % 2 == 0), Draw(0))
    asked = {i.item for i in (*parts.forget, *parts.holdout, *parts.validation)}
    assert asked == {0, 2, 4}, "6 is the last, which is sensitive and so in no set"
    assert len(parts.forget) == 2
    assert [(i.user, i.item) for i in parts.test] == [(1, 3)]
    assert {(i.user, i.item) for i in parts.retain} == {(0, 1), (0, 3), (0, 5), (1, 0), (1, 1), (1, 2)}
    assert sorted(parts.before) == sorted([*parts.retain, *parts.forget])


def test_a_history_is_what_came_before_of_the_same_user() -> None:
    log = [Interaction(k, k % 2, k) for k in range(8)]
    assert examples(log[6:7], log[:5], 2) == [{"user": 0, "history": [2, 4], "item": 6}]
    assert examples(log[:1], log, 2) == [{"user": 0, "history": [], "item": 0}]
    assert examples(log[6:7], log, 0) == [{"user": 0, "item": 6}]


def test_a_genre_of_some_users_goes_and_as_much_was_held_back(tmp_path: Path) -> None:
    scenario = made(tmp_path, forget="category:horror")
    task, request = scenario.task, scenario.request
    assert isinstance(task, Recommendation)
    titles = [int(task.titles[item].split()[1]) for item in task.sensitive]
    assert titles == sorted(titles)
    assert all(title % 3 == 0 for title in titles)
    asked = of(scenario, "forget") + of(scenario, "holdout") + list(iterate(request.validation or ()))
    assert {e["item"] for e in asked} <= set(task.sensitive)
    users = {e["user"] for e in of(scenario, "forget")}
    assert len(of(scenario, "forget")) >= 0.1 * 192
    assert not [e for e in of(scenario, "retain") if e["user"] in users and e["item"] in task.sensitive]
    assert not [e for e in of(scenario, "test") if e["user"] in users and e["item"] in task.sensitive]
    everywhere = Counter((e["user"], e["item"]) for part in request.sets.values() for e in iterate(part))
    assert max(everywhere.values()) == 1
    assert "forget" in scenario.summary and "keep nothing" not in scenario.summary


def test_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    first, again, other = (made(tmp_path, seed=seed).request.fingerprint for seed in (0, 0, 1))
    assert first == again != other


def test_users_who_want_all_forgotten_keep_nothing_and_are_not_tested(tmp_path: Path) -> None:
    scenario = made(tmp_path, forget="user:3+7")
    users = {e["user"] for e in of(scenario, "forget")}
    assert users == {2, 6}
    assert not users & {e["user"] for e in of(scenario, "retain") + of(scenario, "test")}
    assert len(of(scenario, "test")) == 10
    assert "2 of them keep nothing, and are not tested" in scenario.summary
    assert scenario.task.sensitive == ()  # type: ignore[attr-defined]
    some = made(tmp_path, forget="users")
    assert len(of(some, "forget")) >= 0.1 * 192 > len(of(some, "forget")) - 8


def test_spam_pushes_ten_unpopular_films_beside_popular_ones(tmp_path: Path) -> None:
    scenario = made(tmp_path, forget="spam", core=1)
    task = scenario.task
    assert isinstance(task, Recommendation)
    assert len(task.sensitive) == PUSHED
    made_up = {e["user"] for e in of(scenario, "forget")}
    assert min(made_up) == 12, "after the real users"
    assert len(of(scenario, "forget")) == PUSHED * len(made_up), "half of each profile's twenty"
    assert len(of(scenario, "test")) == 12
    assert {e["user"] for e in of(scenario, "test")} == set(range(12))
    assert not made_up & {e["user"] for e in of(scenario, "retain")}


@pytest.mark.parametrize("model", ["mf", "sasrec"])
def test_requests_come_one_after_another(tmp_path: Path, model: str) -> None:
    """What was asked before is in no set, and in no history; what will be asked is still retained."""
    steps = [made(tmp_path, model=model, checkpoints=2, checkpoint=checkpoint) for checkpoint in (1, 2)]
    first, second = ({(e["user"], e["item"]) for e in of(step, "forget")} for step in steps)
    assert first and second and not first & second
    assert not {u for u, _ in first} & {u for u, _ in second}
    assert second <= {(e["user"], e["item"]) for e in of(steps[0], "retain")}
    later = [e for part in steps[1].request.sets.values() for e in iterate(part)]
    trained = list(iterate(steps[1].original_data or ()))
    assert not first & {(e["user"], e["item"]) for e in (*later, *trained)}
    if model == "sasrec":
        assert not first & {(e["user"], item) for e in (*later, *trained) for item in e["history"]}
        retained = of(steps[0], "retain")
        assert not first & {(e["user"], item) for e in retained for item in e["history"]}
        knew = list(iterate(steps[0].original_data or ()))
        assert first & {(e["user"], item) for e in knew for item in e["history"]}, "the original knew them"


def test_graphs_hold_what_may_be_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    steps = [made(tmp_path, model="lightgcn", checkpoints=2, checkpoint=checkpoint) for checkpoint in (1, 2)]
    first, second = (step.untrained_model(0, CPU) for step in steps)
    assert first.edges.shape == second.edges.shape  # type: ignore[union-attr]
    gone = {(e["user"], e["item"]) for e in of(steps[0], "forget")}

    def pairs(model: torch.nn.Module) -> set[tuple[int, int]]:
        edges = model.edges[:, model.edges[0] != NOBODY]  # type: ignore[union-attr, index]
        return {(int(u), int(i)) for u, i in edges.T}  # type: ignore[union-attr]

    assert gone <= pairs(first)
    assert not gone & pairs(second)
    retrained = steps[0].train_retrained(0, CPU).model
    assert pairs(retrained) == {(e["user"], e["item"]) for e in of(steps[0], "retain")}


@pytest.mark.parametrize("model", ["mf", "sasrec", "gru"])
def test_each_model_is_trained_and_retrained(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    scenario = made(tmp_path, model=model, epochs=1)
    original, retrained = scenario.train_original(0, CPU).model, scenario.train_retrained(0, CPU).model
    shapes = [[p.shape for p in m.parameters()] for m in (original, retrained)]
    assert shapes[0] == shapes[1]
    assert not all(torch.equal(a, b) for a, b in zip(original.parameters(), retrained.parameters(), strict=True))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1,99,4.0,7"], r"ratings.csv:242: expected a film of movies.csv, got movieId '99'"),
        (["1,2,much,7"], r"ratings.csv:242: expected rating to be a number, got 'much'"),
        (["1,2,nan,7"], r"ratings.csv:242: expected rating to be a number, got 'nan'"),
        (["1,2,-99,7"], r"ratings.csv:242: expected a rating from 0 to 5, got -99"),
        (["1,2,400,7"], r"ratings.csv:242: expected a rating from 0 to 5, got 400"),
        (["1,2,4.0,soon"], r"ratings.csv:242: expected timestamp to be a number, got 'soon'"),
        ([",2,4.0,7"], r"ratings.csv:242: expected a user, got an empty userId"),
        (["1,2"], r"ratings.csv:242: expected 4 cells"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: list[str], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        read_log(folder(tmp_path, *lines), 4.0, 2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data": ""}, "movielens: expected data=FOLDER with ratings.csv and movies.csv, got ''"),
        ({"forget": "category:Horor"}, "expected a genre of the films, got 'Horor'. Did you mean 'Horror'?"),
        ({"forget": "user:77"}, "expected a user with interactions .* got '77'"),
        ({"forget": "everything"}, "forget: expected category:GENRE, users, user:ID"),
        ({"checkpoint": 2}, "expected a checkpoint in 1..1"),
        ({"forget": "user:1", "checkpoints": 2, "checkpoint": 2}, "a user for each of 2 requests, got 1 users"),
        ({"core": 50}, "expected users and films with 50 ratings of 4 or more, got none"),
        ({"fraction": 0.0}, "fraction"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        made(tmp_path, **settings)


def test_a_small_catalogue_has_no_room_for_spam() -> None:
    log = RatingLog([Interaction(0, 0, 0)], ["1"], ("Heat",) * 19, (frozenset({"War"}),) * 19)
    with pytest.raises(BadInput, match="expected at least 20 films for spam, got 19"):
        spammed(log, 1, 0)


def test_a_film_that_stands_twice_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, movies=[*MOVIES, '3,"Other",Comedy'])
    with pytest.raises(BadInput, match="expected each film once, got movieId '3' again"):
        read_log(tmp_path, 4.0, 2)


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, movies=["id,title", "1,Heat"])
    with pytest.raises(BadInput, match=r"movies.csv: expected the columns movieId, title, genres, got id, title"):
        read_log(tmp_path, 4.0, 2)

"""MovieLens' files: who rated what and when, and which genres a film has."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from unrecall.disk.tables import Located, records
from unrecall.errors import BadInput, nearest
from unrecall.scenarios.recommenders import Interaction

T = TypeVar("T")
RATINGS = ("userId", "movieId", "rating", "timestamp")
STARS = 5.0
"""The highest rating."""
MOVIES = ("movieId", "title", "genres")
"""The columns of the two files; capitals don't matter."""


@dataclass(frozen=True)
class RatingLog:
    """Interactions in the order of time, by numbers from 0 on, and what stands behind the numbers.

    `users`: each user's name in the file. `titles`, `genres`: of each item.
    """

    interactions: Sequence[Interaction]
    users: Sequence[str]
    titles: tuple[str, ...]
    genres: tuple[frozenset[str], ...]


class Rating(NamedTuple):
    """A line of the file of ratings."""

    user: str
    movie: str
    time: int


def read_log(folder: Path, least: float, core: int) -> RatingLog:
    """The interactions of a folder: ratings of `least` or more, of users and films with `core` of them or more.

    Lines may stand in any order; of a film that a user rated several times the last rating counts. BadInput names the
    line of what is no rating, or of a film that movies.csv doesn't have.
    """
    movies: dict[str, tuple[str, str]] = {}
    for place, row in _rows(folder / "movies.csv", MOVIES):
        if row["movieid"] in movies:
            raise BadInput(f"{place}: expected each film once, got movieId '{row['movieid']}' again. Remove a line.")
        movies[row["movieid"]] = row["title"], row["genres"]
    ratings = sorted(_ratings(folder / "ratings.csv", movies), key=lambda pair: pair[0][2])
    latest = {(rating.user, rating.movie): (rating, stars) for rating, stars in ratings}
    liked = cored([rating for rating, stars in latest.values() if stars >= least], core)
    if not liked:
        raise BadInput(
            f"{folder}: expected users and films with {core} ratings of {least:g} or more, got none. Lower core, or "
            "least."
        )
    liked.sort(key=lambda rating: (rating.time, rating.user, rating.movie))
    users = sorted({rating.user for rating in liked}, key=_in_order)
    films = sorted({rating.movie for rating in liked}, key=_in_order)
    user_numbers, film_numbers = ({name: i for i, name in enumerate(names)} for names in (users, films))
    return RatingLog(
        [Interaction(place, user_numbers[r.user], film_numbers[r.movie]) for place, r in enumerate(liked)],
        users,
        tuple(movies[film][0] for film in films),
        tuple(frozenset(movies[film][1].split("|")) for film in films),
    )


def cored(ratings: Sequence[Rating], core: int) -> list[Rating]:
    """The ratings that are left when users and films with fewer than `core` are taken out until there are none."""
    left = list(ratings)
    while True:
        users, movies = Counter(r.user for r in left), Counter(r.movie for r in left)
        dense = [r for r in left if users[r.user] >= core and movies[r.movie] >= core]
        if len(dense) == len(left):
            return dense
        left = dense


def of_genre(log: RatingLog, genre: str) -> set[int]:
    """The items of a genre; BadInput where there is none of that name."""
    spelling = {name.lower(): name for genres in log.genres for name in genres}
    if genre.lower() not in spelling:
        raise BadInput(f"forget: expected a genre of the films, got '{genre}'. {nearest(genre, spelling.values())}")
    return {item for item, genres in enumerate(log.genres) if spelling[genre.lower()] in genres}


def of_users(log: RatingLog, names: Sequence[str]) -> list[int]:
    """The numbers of users by their names in the file; BadInput for one that has no interaction."""
    numbers = {name: i for i, name in enumerate(log.users)}
    for name in names:
        if name not in numbers:
            raise BadInput(
                f"forget: expected a user with interactions that are left after least and core, got '{name}'. "
                f"{nearest(name, log.users[:20])}"
            )
    return [numbers[name] for name in names]


def _in_order(name: str) -> tuple[int, str]:
    """Numbers by their size, and before other names."""
    return (int(name), "") if name.isdecimal() else (2**63, name)


def _rows(path: Path, columns: Sequence[str]) -> Sequence[Located]:
    """The rows of a file with their places, columns in small letters; BadInput where one is missing."""
    rows = [(place, {name.lower(): cell for name, cell in row.items()}) for place, row in records(path)]
    for name in columns:
        if name.lower() not in rows[0][1]:
            actual = ", ".join(rows[0][1])
            raise BadInput(f"{path}: expected the columns {', '.join(columns)}, got {actual}. Name them so.")
    return rows


def _ratings(path: Path, movies: Mapping[str, Any]) -> list[tuple[Rating, float]]:
    """Each line's rating and its stars."""
    ratings = []
    for place, row in _rows(path, RATINGS):
        stars, time = _number(place, row, "rating", float), _number(place, row, "timestamp", int)
        if not 0 <= stars <= STARS:
            raise BadInput(f"{place}: expected a rating from 0 to {STARS:g}, got {stars:g}. Correct the line.")
        if not row["userid"].strip():
            raise BadInput(f"{place}: expected a user, got an empty userId. Remove the line.")
        if row["movieid"] not in movies:
            raise BadInput(
                f"{place}: expected a film of movies.csv, got movieId '{row['movieid']}'. Add the film there, or "
                "remove the line."
            )
        ratings.append((Rating(row["userid"], row["movieid"], time), stars))
    return ratings


def _number(place: str, row: Mapping[str, Any], name: str, kind: Callable[[str], T]) -> T:
    try:
        number = kind(row[name])
    except ValueError:
        number = None
    if number is None or not math.isfinite(float(str(number))):
        raise BadInput(f"{place}: expected {name} to be a number, got '{row[name]}'. Correct the line.")
    return number

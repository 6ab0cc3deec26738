"""Settings and worlds that all tests share."""

import pytest
import torch
from hypothesis import settings

from tests.worlds import (
    World,
    make_grouped_world,
    make_labelled_texts_world,
    make_pairs_world,
    make_pictures_world,
    make_tastes_world,
    make_text_world,
    make_world,
)

# Hypothesis: the same examples each time, however busy the machine.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def pairs_world() -> World:
    return make_pairs_world()


@pytest.fixture(scope="session")
def tastes_world() -> World:
    return make_tastes_world()


@pytest.fixture(scope="session")
def text_world() -> World:
    return make_text_world()


@pytest.fixture(scope="session")
def samples_world() -> World:
    return make_world("samples")


@pytest.fixture(scope="session")
def grouped_world(samples_world: World) -> World:
    return make_grouped_world(samples_world)


@pytest.fixture(scope="session")
def labelled_texts_world() -> World:
    return make_labelled_texts_world()


@pytest.fixture(scope="session")
def pictures_world() -> World:
    return make_pictures_world()


@pytest.fixture(scope="session")
def class_world() -> World:
    return make_world("class")


torch.set_num_threads(1)  # now, since worlds that serve a whole session are made before any test's own fixtures

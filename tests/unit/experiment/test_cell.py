"""What a checkpoint is loaded into."""

from dataclasses import replace

import pytest

from tests.worlds import CPU, World, network
from unrecall.disk.weights import same_weights
from unrecall.errors import BadInput
from unrecall.experiment.cell import architecture
from unrecall.scenarios.base import Scenario


def test_an_original_that_is_given_needs_a_network_to_go_into_and_no_recipe(samples_world: World) -> None:
    w = samples_world
    scenario = Scenario("case", "", w.task, w.request, lambda seed, session: network(seed=seed))
    assert same_weights(architecture(scenario, 3, CPU), network(seed=3))
    with pytest.raises(BadInput, match=r"case: expected build, .* weights of --original go into, got none\. Give"):
        architecture(replace(scenario, build=None), 3, CPU)
    assert architecture(replace(scenario, build=None, original=w.original), 3, CPU) is w.original

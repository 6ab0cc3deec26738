"""One vector an example, by hand."""

import torch

from unrecall.models.layers import pooled


def test_a_sequence_is_the_mean_over_positions_that_hold_input() -> None:
    h = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    held = torch.tensor([[True, True, False]])
    assert pooled(h, held).tolist() == [[2, 4]]
    assert torch.allclose(pooled(h), torch.tensor([[13 / 3, 17 / 3]]))
    assert torch.equal(pooled(h, held[:, :2]), pooled(h)), "a mask of another length says nothing"
    assert pooled(h, torch.zeros_like(held)).tolist() == [[0, 0]]


def test_a_map_is_the_mean_over_places_and_a_vector_stays() -> None:
    assert pooled(torch.arange(8.0).view(1, 2, 2, 2)).tolist() == [[1.5, 5.5]]
    assert pooled(torch.tensor([[1, 2]], dtype=torch.float16)).dtype == torch.float32

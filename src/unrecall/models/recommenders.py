"""Recommenders: for each user, or for each history of items, a logit for every item of the catalogue.

Histories are padded on the right with the number of items, which is no item's; before each stands a start, so that an
empty history is one as well.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.errors import MissingDependency

NOBODY = -1
"""What stands in a graph in place of an edge that was taken out."""


class Table(nn.Embedding):
    """A vector for each user or item; small at the start, so that untrained logits are near 0."""

    def reset_parameters(self) -> None:
        """Draws the vectors anew."""
        nn.init.normal_(self.weight, std=0.1)


class MatrixFactorisation(nn.Module):
    """A vector a user, a vector and a number an item: their products are the logits.

    Reference: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009.
    Differs from the paper in the loss, which is the softmax over the catalogue.
    """

    def __init__(self, users: int, items: int, width: int = 64) -> None:
        super().__init__()
        self.users = Table(users, width)
        self.head = nn.Linear(width, items)

    def forward(self, users: Tensor) -> Tensor:
        """Users `[n]` in, logits `[n, items]` out."""
        logits: Tensor = self.head(self.users(users))
        return logits


class Products(nn.Module):
    """Inner products of each user's vector with each item's."""

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """`[n, d]` and `[items, d]` in, `[n, items]` out."""
        return users @ items.T


class LightGCN(nn.Module):
    """PyTorch Geometric's LightGCN: vectors of users and items, averaged over their neighbourhoods in a graph.

    `edges` `[2, n]`: the users and items of the interactions that are the graph. Nodes without edges keep a share of
    their own vector. The graph is data, which no training changes: `withdraw` takes interactions out of it.

    Reference: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020,
    arXiv 2002.02126. Differs from the paper in the loss, which is the softmax over the catalogue.
    """

    edges: Tensor

    def __init__(self, users: int, items: int, edges: Tensor, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.count = users
        self.body: Any = body(users + items, width, layers)
        self.scores = Products()
        self.register_buffer("edges", edges)

    def forward(self, users: Tensor) -> Tensor:
        """Users `[n]` in, logits `[n, items]` out."""
        pairs = self.edges[:, self.edges[0] != NOBODY]
        forth = torch.stack([pairs[0], pairs[1] + self.count])
        vectors = self.body.get_embedding(torch.cat([forth, forth.flip(0)], 1))
        logits: Tensor = self.scores(vectors[users], vectors[self.count :])
        return logits

    def withdraw(self, pairs: Tensor) -> None:
        """Takes interactions `[2, n]` out of the graph; the file of the weights keeps its size, and not the edges."""
        nodes = self.body.num_nodes
        removed = torch.isin(self.edges[0] * nodes + self.edges[1], pairs[0] * nodes + pairs[1])
        left = self.edges[:, ~removed]
        self.edges.fill_(NOBODY)
        self.edges[:, : left.shape[1]] = left


def body(nodes: int, width: int, layers: int) -> nn.Module:
    """PyTorch Geometric's module."""
    try:
        from torch_geometric.nn.models import LightGCN as Body
    except ImportError as error:
        raise MissingDependency("torch-geometric", "graphs") from error
    module: nn.Module = Body(nodes, width, layers)
    return module


class Histories(nn.Module):
    """What models of histories share: an item's vector each, and the place of the last item."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.items = Table(items, width)
        self.head = nn.Linear(width, items)

    def vectors(self, histories: Tensor) -> Tensor:
        """`[n, longest]` in, `[n, 1 + longest, d]` out: zeros for the start and for padding."""
        held = histories < self.items.num_embeddings
        vectors = self.items(histories.clamp_max(self.items.num_embeddings - 1)) * held[..., None]
        return F.pad(vectors, (0, 0, 1, 0))

    def logits(self, states: Tensor, histories: Tensor) -> Tensor:
        """Of the state `[n, 1 + longest, d]` after the last item of each history."""
        lengths = (histories < self.items.num_embeddings).sum(1)
        logits: Tensor = self.head(states[torch.arange(len(states), device=states.device), lengths])
        return logits


class GRU4Rec(Histories):
    """A GRU over a history.

    Reference: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, arXiv
    1511.06939. Differs from the paper in the loss, which is the softmax over the catalogue, and in batches of whole
    histories.
    """

    def __init__(self, items: int, width: int = 64) -> None:
        super().__init__(items, width)
        self.body = nn.GRU(width, width, batch_first=True)

    def forward(self, histories: Tensor) -> Tensor:
        """Histories `[n, longest]` in, logits `[n, items]` out."""
        return self.logits(self.body(self.vectors(histories))[0], histories)


class SASRec(Histories):
    """A causal transformer over a history; an item's vector is also its row of the head.

    Reference: Kang, McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv 1808.09781. Differs from the
    paper in the loss, the softmax over the catalogue in place of a binary one against one drawn item, in padding on the
    right, and in that each history predicts its last item alone.
    """

    def __init__(self, items: int, longest: int, width: int = 64, layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__(items, width)
        self.head = nn.Linear(width, items, bias=False)
        self.head.weight = self.items.weight
        self.positions = Table(1 + longest, width)
        layer = nn.TransformerEncoderLayer(width, 1, width, dropout, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, histories: Tensor) -> Tensor:
        """Histories `[n, longest]` in, logits `[n, items]` out."""
        vectors = self.vectors(histories)
        length = vectors.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=vectors.device).triu(1)
        return self.logits(self.body(vectors + self.positions.weight[:length], mask=causal), histories)

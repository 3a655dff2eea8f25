"""A small causal transformer over sequences of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cache = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (B, heads, length, width of a head)


class CausalTransformer(nn.Module):
    """Logits of each token given those before it and a context: (B, L) and (B,) -> (B, L, outputs).

    Layers of attention and of two linear maps with GELU between them, each after a layer normalization and added to
    what it was given (Vaswani et al. 2017; Radford et al. 2019); learned embeddings of tokens, positions and contexts,
    of which the context stands before the first token.

    Args:
        tokens: how many different ones.
        outputs: logits of a position.
        length: L.
        contexts: how many different ones.
        width: of a token's vector.
        layers: of attention.
        heads: of each layer; they share the width.
        dropout: of what each layer adds, in training.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(
        self,
        tokens: int,
        outputs: int,
        length: int,
        contexts: int = 1,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a transformer of width {width} cannot have {heads} heads of equal width")
        self.heads = heads
        self.tokens, self.contexts = nn.Embedding(tokens, width), nn.Embedding(contexts, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.layers = nn.ModuleList([Layer(width, heads, dropout) for _ in range(layers)])
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, outputs)
        for weight in (self.tokens.weight, self.contexts.weight, self.positions):
            nn.init.normal_(weight, std=0.02)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """Logits (B, L, outputs) of all positions at once; the last token is seen by none."""
        x = torch.cat([self.contexts(context)[:, None], self.tokens(tokens[:, :-1])], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.output(self.norm(x))
        return logits

    def next(self, token: Tensor, position: int, cache: Cache) -> Tensor:
        """Logits (B, outputs) of a position, of the token before it (B,), or at position 0 of the context.

        What the layers have of the positions before is in `cache`, and that of this one is added to it.
        """
        before = self.tokens if position else self.contexts
        x = before(token)[:, None] + self.positions[position]
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            x = layer.next(x, position, keys, values)  # type: ignore[operator]
        logits: Tensor = self.output(self.norm(x[:, 0]))
        return logits

    def empty_cache(self, batch: int) -> Cache:
        """Room for the keys and values of all positions."""
        shape = (batch, self.heads, len(self.positions), self.positions.shape[1] // self.heads)
        return [(self.positions.new_empty(shape), self.positions.new_empty(shape)) for _ in self.layers]


class Layer(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) (Radford et al. 2019)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_change = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.change = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """All positions, each of which sees itself and those before it, (B, L, width)."""
        queries, keys, values = self._projected(x)
        return self._added(x, F.scaled_dot_product_attention(queries, keys, values, is_causal=True))

    def next(self, x: Tensor, position: int, keys: Tensor, values: Tensor) -> Tensor:
        """One position (B, 1, width), with the keys and values of those before it; its own are added to them."""
        queries, keys[:, :, position : position + 1], values[:, :, position : position + 1] = self._projected(x)
        seen = slice(position + 1)
        return self._added(x, F.scaled_dot_product_attention(queries, keys[:, :, seen], values[:, :, seen]))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = self.project(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, heads, D)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def _added(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(self.merge(attended.transpose(1, 2).flatten(2)))
        changed: Tensor = x + self.dropout(self.change(self.before_change(x)))
        return changed

"""A chunk of a Llama-like transformer: the modules whose parameters `planner/ledger/parameters.py` lists."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import Experts, Layer, Transformer
from meshwright.planner.ledger.workload import Chunk
from meshwright.runtime.attention import AttentionLayer, Core, Rotation
from meshwright.runtime.mixture import Mixture, Routes
from meshwright.runtime.mlp import MlpLayer

NORM_EPSILON = 1e-5


class Block(nn.Module):
    """One layer; `recomputed`: its backward pass computes all of it again."""

    def __init__(
        self, hidden: int, layer: Layer, *, core: Core, routes: Routes | None, rotation: Rotation, recomputed: bool
    ) -> None:
        super().__init__()
        self.recomputed = recomputed
        self.attention_norm = nn.RMSNorm(hidden, eps=NORM_EPSILON)
        self.attention = AttentionLayer(hidden, layer.attention, core=core, rotation=rotation)
        self.mlp_norm = nn.RMSNorm(hidden, eps=NORM_EPSILON)
        if isinstance(layer.mlp, Experts) and routes is not None:
            self.mlp: nn.Module = Mixture(hidden, layer.mlp, routes=routes)
        else:
            self.mlp = MlpLayer(hidden, layer.mlp.ffn_hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [sequences, tokens, hidden] to the same shape."""
        if self.recomputed:
            return checkpoint(self._layer, tokens, use_reentrant=False, preserve_rng_state=False)
        return self._layer(tokens)

    def _layer(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class Head(nn.Module):
    """The last norm and the output projection."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(model.hidden, eps=NORM_EPSILON)
        self.output = nn.Linear(model.hidden, model.vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [sequences, tokens, hidden] to logits [sequences, tokens, vocab]."""
        return self.output(self.norm(tokens))


class ModelChunk(nn.Module):
    """The layers of a chunk, with the embedding before the model's first and the head behind its last."""

    def __init__(self, model: Transformer, chunk: Chunk, *, layers: dict[int, Block]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(model.vocab, model.hidden) if chunk.first else None
        self.layers = nn.ModuleDict({str(index): layer for index, layer in layers.items()})
        self.head = Head(model) if chunk.last else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map word numbers [sequences, tokens], or the chunk before's tokens, to the next chunk's or to logits."""
        if self.embedding is not None:
            tokens = self.embedding(tokens)
        for layer in self.layers.values():
            tokens = layer(tokens)
        return tokens if self.head is None else self.head(tokens)


def recomputes_core(recompute: Recompute) -> bool:
    """Tell whether the attention core alone is computed again."""
    return recompute is Recompute.SELECTIVE

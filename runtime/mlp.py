"""The gated MLP of Llama's kind (arXiv 2002.05202)."""

from torch import Tensor, nn
from torch.nn.functional import silu


class MlpLayer(nn.Module):
    """Three matrices of hidden x width."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, width, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [..., hidden] to the same shape."""
        return self.down(silu(self.gate(tokens)) * self.up(tokens))

"""The bytes that a rank holds at its peak, by what they are for."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes of one rank at one moment.

    parameters: shards, and what is gathered of them. gradients: of parameters, whole or sharded, and what is being
    reduced. optimizer: moments. activations: what backward passes need, logits and what a pass makes for itself among
    it. workspace: of matrix libraries.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    workspace: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.by_class().values())

    def by_class(self) -> dict[str, float]:
        """Give the bytes by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

"""What a catalog model says about its experts: which layers have them, and their bytes."""

from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.costmodels.transformer import Experts, transformer_of

# BF16, as experts are trained and served where nothing else is said.
WEIGHT_BYTES = 2


def experts_of(model: ModelEntry) -> Experts:
    """Give the mixture of a model. Raises InputError where it has none."""
    for kind in transformer_of(model).layer_kinds:
        if isinstance(kind.mlp, Experts):
            return kind.mlp
    raise InputError(f"{model.name} has no experts", path="model")


def dense_layers(model: ModelEntry) -> frozenset[int]:
    """Give the layers of a model that have no experts."""
    layers = transformer_of(model).layers
    return frozenset(at for at, layer in enumerate(layers) if not isinstance(layer.mlp, Experts))


def expert_bytes(model: ModelEntry) -> int:
    """Give the bytes of one expert's matrices: up, down, and gate where the MLP is gated. Raises InputError."""
    return (3 if model.gated_mlp else 2) * model.hidden * experts_of(model).ffn_hidden * WEIGHT_BYTES

"""How the routers of published steps chose experts, where their publisher says so.

A case tells how many experts a token goes to, not which. Software that is to be timed without a trained router deals
tokens out by a gate of its own, and where a token's experts are then decides how far it is sent.
"""

from dataclasses import replace

from meshwright.costmodels.transformer import Experts, Layer, Transformer
from meshwright.planner.accuracy.case import Case

# Frameworks whose published steps were all measured with a gate that gives the i-th token experts i k to i k + k - 1,
# modulo E. NeMo AutoModel: the notes of docs/performance-summary.mdx ("Fake balanced gate is enabled"), and
# FakeBalancedGate of nemo_automodel/components/moe/layers.py.
DEALING = ("NeMo AutoModel",)


def with_published_routing(model: Transformer, case: Case) -> tuple[Transformer, tuple[str, ...]]:
    """Give the model of a case with the routing of its source's benchmarks, and what was assumed so, a sentence each.

    Only published steps were measured with their gate: those that name a source, and no spread of loads.
    """
    framework = (case.framework or "").casefold()
    dealing = any(framework.startswith(name.casefold()) for name in DEALING)
    if case.source is None or case.model.moe is None or case.model.moe.load_spread or not dealing:
        return model, ()
    told = "its source's benchmarks deal out experts in turn, so that those of a token are next to one another"
    return replace(model, layers=tuple(_dealt(layer) for layer in model.layers)), (told,)


def _dealt(layer: Layer) -> Layer:
    return replace(layer, mlp=replace(layer.mlp, consecutive=True)) if isinstance(layer.mlp, Experts) else layer

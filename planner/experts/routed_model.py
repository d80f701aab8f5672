"""A model whose experts are as loaded as measured routing makes them."""

from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry, PlacedLoad
from meshwright.planner.experts.place import place_experts
from meshwright.planner.experts.routing import Routing


def routed_model(model: ModelEntry, routing: Routing) -> ModelEntry:
    """Give the model with the load of its busiest expert rank for each degree of expert parallelism.

    Experts are placed without replicas, as training has them, on as many ranks as each divisor of their number; the
    largest load over the mean is averaged over the layers.

    Raises InputError where the model has no experts, or others than the routing is of.
    """
    if model.experts is None:
        raise InputError(f"{model.name} has no experts, so that routing says nothing of it", path="routing")
    count = model.experts.experts
    if count != routing.experts:
        raise InputError(f"is of {routing.experts} experts a layer, and {model.name} has {count}", path="routing")
    placed = tuple(
        PlacedLoad(
            expert_parallel=ranks,
            load=max(1.0, place_experts(routing.loads, devices=ranks).overall()["max_over_mean"]),
        )
        for ranks in range(1, count + 1)
        if count % ranks == 0
    )
    return model.model_copy(update={"experts": model.experts.model_copy(update={"placed_loads": placed})})

"""The schema of a mixed cluster: groups of devices, each a uniform cluster of its own, and the links between them."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.entry import Count, Entry, Fraction, Name, Natural, Source, field_error
from meshwright.catalog.quantity import BytesPerSecond, Seconds, UsdPerGigabyte


class DegradeEntry(Entry):
    """What is wrong with one node of a group, numbered from 0.

    compute: the share of its devices' rates that is left. network: the share of its bandwidth into outer tiers.
    missing: it isn't there.
    """

    node: Natural
    compute: Fraction = 1.0
    network: Fraction = 1.0
    missing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _leaves_something(cls, given: Any) -> Any:  # noqa: ANN401 - what a file holds
        for name in ("compute", "network") if isinstance(given, dict) else ():
            share = given.get(name)
            if isinstance(share, int | float) and not isinstance(share, bool) and share == 0:
                raise field_error(
                    name, "is 0, which leaves nothing", hint="say `missing: true` of a node that isn't there"
                )
        return given

    @model_validator(mode="after")
    def _takes_something_away(self) -> Self:
        rest = {"compute": self.compute, "network": self.network}
        if self.missing and min(rest.values()) < 1.0:
            name = next(name for name, share in rest.items() if share < 1.0)
            raise field_error(name, f"is {rest[name]:g} of a node that is missing", hint="give one of the two")
        if not self.missing and min(rest.values()) == 1.0:
            hint = "give compute or network as the share that is left (such as compute: 0.8), or missing: true"
            raise field_error("node", f"{self.node} is listed, but nothing of it is degraded", hint=hint)
        return self


class GroupEntry(Entry):
    """Devices of one kind in one network.

    cluster: a catalog name, a file beside this one, or a cluster written out. nodes: how many of its nodes, by default
    all. degrade: those of them that aren't like the others, one or
    a list.
    """

    name: Name
    cluster: Name | ClusterEntry
    nodes: Count | None = None
    degrade: tuple[DegradeEntry, ...] = ()

    @field_validator("degrade", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:  # noqa: ANN401 - what a file holds
        return [given] if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _nodes_are_told_once(self) -> Self:
        numbers = [each.node for each in self.degrade]
        for position, number in enumerate(numbers):
            if number in numbers[:position]:
                raise field_error(f"degrade.{position}.node", f"node {number} is degraded twice")
            if self.nodes is not None and number >= self.nodes:
                raise field_error(
                    f"degrade.{position}.node", f"is {number}, but the group's nodes are 0 to {self.nodes - 1}"
                )
        return self


class LinkEntry(Entry):
    """What joins two groups, by their names.

    bandwidth: payload in each direction that all their devices share. latency: of one message. left: the share of the
    bandwidth that is left, where the link is degraded. price: of what is sent.
    """

    between: tuple[Name, Name]
    bandwidth: BytesPerSecond
    latency: Seconds
    left: Fraction = 1.0
    price: UsdPerGigabyte | None = None
    source: Source


class MixedClusterEntry(Entry):
    """Groups, and the links between them, by which each can reach each other one."""

    name: Name
    groups: Annotated[tuple[GroupEntry, ...], Field(min_length=1, max_length=8)]
    links: tuple[LinkEntry, ...] = ()
    source: Source

    @model_validator(mode="after")
    def _links_join_groups(self) -> Self:
        names = [group.name for group in self.groups]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise field_error(f"groups.{position}.name", f"two groups are called {name!r:.60}")
        pairs: list[frozenset[str]] = []
        for position, link in enumerate(self.links):
            unknown = next((name for name in link.between if name not in names), None)
            if unknown is not None:
                raise field_error(
                    f"links.{position}.between",
                    f"no group is called {unknown!r:.60}",
                    hint=f"known: {', '.join(names)}",
                )
            pair = frozenset(link.between)
            if len(pair) == 1:
                raise field_error(f"links.{position}.between", f"joins {link.between[0]!r:.60} to itself")
            if pair in pairs:
                raise field_error(f"links.{position}.between", f"{' and '.join(link.between)} have a link already")
            pairs.append(pair)
        apart = _unreached(names, pairs)
        if apart:
            raise field_error(
                "links",
                f"no link leads from {names[0]} to {apart[0]}",
                hint=f"add one: {{between: [{names[0]}, {apart[0]}], bandwidth: 100 Gb/s, latency: 1 ms, source: ...}}",
            )
        return self


def _unreached(names: Sequence[str], pairs: Sequence[frozenset[str]]) -> list[str]:
    """Give the names that no chain of pairs leads to from the first."""
    reached = {names[0]}
    for _ in names:
        reached |= {name for pair in pairs if pair & reached for name in pair}
    return [name for name in names if name not in reached]

"""The fastest way to train on islands, with a bound that no way of this space is below: an integer program.

    minimise     t
    over         shape      which islands pass a pipeline on, which train replicas, which stand idle  (shapes.py)
                 across     islands' optimizer states: copies, or a share each                        (island_links.py)
                 z[p, j]    0 or 1: party p, an island or a chain of them, runs with layout j         (alone.py,
                            that of an island alone is of the uniform search's space                   chain_members.py)
                 m[p, j]    whole: its micro-batches; u[p, j, h], 0 or 1: a smaller last one          (laws.py)
                 y[s, i, n] 0 or 1: stage s of a chain holds n layers from layer i on                 (chain_cut.py)
                 r[s]       whole: how many of them are computed again                                (chain_cut.py)
    subject to
      one layout     sum over j of z[p, j] = 1                                                        _side
      groups         tensor, context and expert groups of j inside an island                          members_of, alone
      done           a_j z[p, j] + c_j m[p, j] + sum over h of d_jh u[p, j, h] <= t                   Laws.micro_batches
      batch          sum over p, j of q_j m[p, j] + q_j / 2^h u[p, j, h] >= global batch              best_shares
      one segment    sum over i, n of y[s, i, n] = 1                                                  stages_of
      cover          sum over i + n = e of y[s, i, n] = sum over n of y[s + 1, e, n]                  splits_below
      memory         y[s, i, n] = 0 where no r[s] fits in the island's devices                        _figures
      passes         every chain of passes of 1F1B, linear in y, takes a_j + c_j m at most            least_costs_s
      exchange       a_j has what the party doesn't hide of what parties send one another             exposed_exchange_s

It is solved by its structure. The tests solve both halves as they stand, the split of a chain and the share of a batch,
by HiGHS (tests/mixed_integer_program.py), and hold what is found here to that.

1  each island alone at a share by its peak, which gives its rate, and by the rates its share (alone.py)
2  every shape gets a bound by what its islands can do by a time at most; shapes are solved, those of the shortest
   chains and then of the best bounds first, but those whose bound is not below the best step
3  A | B: exact over all layouts within a window of the fastest, which is widened until nothing outside it matters
4  A > B: configurations best bound first, each cut by the dynamic program of planner/stages
5  A > B | C: chains as in 4 at their share of the batch, then shares as in 3

Equals: the shape that comes first in shapes.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.island_links import (
    NOTHING,
    Across,
    Edge,
    Exchange,
    exchange_of,
    exposed_exchange_s,
    joined_edges,
    widest_tree,
)
from meshwright.costmodels.parameters import total_parameters
from meshwright.planner.mixed.alone import Alone, alone
from meshwright.planner.mixed.chain_choices import choices
from meshwright.planner.mixed.chain_configs import Configurations, configurations
from meshwright.planner.mixed.chain_cut import ChainCut, Known, Solved, best_chain_cut
from meshwright.planner.mixed.chain_members import members_of
from meshwright.planner.mixed.laws import best_shares, least_s
from meshwright.planner.mixed.question import Mixed
from meshwright.planner.mixed.shapes import Chain, Shape, describe_shape, shapes_of
from meshwright.planner.mixed.sides import NARROWEST, Side, chain_laws, most_done, windows_needed
from meshwright.planner.mixed.solution import MixedResult, Party, ShapeResult, Solution
from meshwright.planner.mixed.waiting import WaitingConfigurations
from meshwright.planner.mixed.ways import Allowed, Way, exchange_ways
from meshwright.planner.mixed.ways.skipping import skipped_stages, skipping

ROUNDS = 4
FIRST_WINDOW = 0.01
# Configurations to cut at most: of pipelines through islands, and of such a chain that shares the batch.
CUTS = 600
CUTS_OF_SHARES = 6
ROUNDING = 1e-9


def search_mixed(asked: Mixed) -> MixedResult:
    """Find the fastest way. Raises Infeasible where nothing fits on any of the shapes."""
    return _Search(asked).result()


class _Search:
    """The state of one search: what islands and chains were found to do, and the best way so far."""

    def __init__(self, asked: Mixed) -> None:
        self.asked = asked
        self.best: Solution | None = None
        self.known: dict[tuple[int, int, float, Exchange, int, int], Alone] = {}
        self.figures: Known = {}
        self.members = members_of(asked.jobs, asked.limits, asked.memory_limits_bytes)
        self.bound_s: dict[Shape, float] = {}
        peaks = [job.cluster.device.peak(job.precision) * job.cluster.devices for job in asked.jobs]
        self.first = tuple(
            self._alone(island, share=asked.batch * peak / sum(peaks), window=FIRST_WINDOW).laws
            for island, peak in enumerate(peaks)
        )

    @property
    def bar_s(self) -> float:
        """A step time that is of no use any more."""
        return np.inf if self.best is None else self.best.step_time_s

    def result(self) -> MixedResult:
        """Solve shapes until none is left that may be better."""
        asked = self.asked
        shapes = shapes_of(asked.islands)
        self.bound_s = {shape: self._bound_s(shape) for shape in shapes}
        steps_s: dict[Shape, float] = {}
        pipelines = [shape for shape in shapes if len(shape) == 1 and len(shape[0]) > 1]
        others = [shape for shape in shapes if shape not in pipelines]
        for shape in sorted(others, key=lambda each: (max(map(len, each)), self.bound_s[each])):
            if max(map(len, shape)) > 1 and pipelines:
                self._cut_pipelines(pipelines, steps_s)
                pipelines = []
            if self.bound_s[shape] < self.bar_s * (1 - ROUNDING):
                solution, self.bound_s[shape] = self._several(shape)
                self._take(solution, steps_s)
        self._cut_pipelines(pipelines, steps_s)
        if self.best is None:
            raise self._infeasible()
        results = [
            ShapeResult(
                shape=shape,
                words=describe_shape(shape, asked.islands),
                bound_s=self.bound_s[shape],
                step_time_s=steps_s.get(shape),
            )
            for shape in shapes
        ]
        order = sorted(results, key=lambda each: each.bound_s if each.step_time_s is None else each.step_time_s)
        bound_s = min([self.best.step_time_s, *self.bound_s.values()])
        return MixedResult(best=self.best, bound_s=bound_s, shapes=tuple(order))

    def _take(self, solution: Solution | None, steps_s: dict[Shape, float]) -> None:
        """Keep a solution where it is the best."""
        if solution is None:
            return
        steps_s[solution.shape] = min(steps_s.get(solution.shape, np.inf), solution.step_time_s)
        if solution.step_time_s < self.bar_s:
            self.best = solution

    @property
    def _left(self) -> float:
        """Give the share of its work that a micro-batch of a pipeline is left with at least."""
        skipped = [each.number for each in self.asked.allow if each.way is Allowed.SKIP_STAGES]
        return 1.0 - max(skipped, default=0) / 100

    def _cut_pipelines(self, shapes: Sequence[Shape], steps_s: dict[Shape, float]) -> None:
        """Cut configurations of all pipelines across links, best bound first, as long as one may be the best."""
        batch, left = self.asked.batch, self._left
        waiting = WaitingConfigurations(batch=batch, left=left)
        for shape in shapes:
            if self.bound_s[shape] * left < self.bar_s * (1 - ROUNDING):
                self.bound_s[shape] = self.bar_s
                waiting.add(shape, self._configurations(shape[0], batch * left))
        done = 0
        while waiting.heap:
            first = waiting.pop()
            if first.bound_s >= self.bar_s * (1 - ROUNDING) or done == CUTS:
                for later in (first, *waiting.heap):
                    self.bound_s[later.shape] = min(self.bound_s[later.shape], later.bound_s)
                break
            if first.refined:
                self._cut(first.shape, waiting.configurations(first), first.row, first.bound_s, steps_s)
                done += 1
            else:
                waiting.refine(first, below_s=self.bar_s)

    def _cut(self, shape: Shape, found: Configurations, row: int, bound_s: float, steps_s: dict[Shape, float]) -> None:
        """Cut one configuration of a pipeline through islands, and keep the cut where it is the best."""
        left, total = self._left, -(-self.asked.batch // int(found.sequences[row]))
        solved = self._best_cut(shape, found, row, total)
        self.bound_s[shape] = min(self.bound_s[shape], bound_s if left < 1.0 else max(solved.bound_s, bound_s))
        if solved.cut is not None:
            self._take(self._piped(shape, solved.cut), steps_s)
        if left < 1.0 and not found.buffered:
            self._take(self._skipped(shape, found, row, total), steps_s)

    def _best_cut(self, shape: Shape, found: Configurations, row: int, total: int, *, skipped: float = 0.0) -> Solved:
        """Find how to cut one configuration of a pipeline through islands, in less than the best step so far."""
        return best_chain_cut(
            found,
            row,
            total=total,
            memory_limits_bytes=self._limits_of(shape[0]),
            below_s=self.bar_s,
            known=self.figures,
            skipped=skipped,
        )

    def _piped(self, shape: Shape, cut: ChainCut) -> Solution:
        """Give a pipeline through islands that has no replicas elsewhere."""
        party = Party(
            chain=shape[0],
            layouts=cut.layouts,
            sequences=self.asked.batch,
            own_s=cut.step_time_s,
            tail_s=0.0,
            exposed_s=0.0,
            job=self.asked.jobs[shape[0][0]],
            cut=cut,
        )
        return Solution(
            shape=shape, across=None, exchange=NOTHING, way=None, parties=(party,), step_time_s=cut.step_time_s
        )

    def _skipped(self, shape: Shape, found: Configurations, row: int, total: int) -> Solution | None:
        """Give a pipeline whose micro-batches skip stages, its layers dealt for that, where there is one."""
        (percent,) = [each.number for each in self.asked.allow if each.way is Allowed.SKIP_STAGES]
        stages = int(found.stages[row])
        count = skipped_stages(stages, percent=percent)
        if not count:
            return None
        solved = self._best_cut(shape, found, row, total, skipped=count / (stages - 2))
        if solved.cut is None:
            return None
        way, passes_s = skipping(solved.cut.forward_s, solved.cut.backward_s, total, percent=percent)
        whole_s = passes_s + max(solved.cut.end_s) + self.asked.jobs[0].stack.step_overhead
        piped = self._piped(shape, solved.cut)
        party = replace(piped.parties[0], own_s=whole_s)
        return replace(piped, way=way, parties=(party,), step_time_s=whole_s)

    def _infeasible(self) -> Infeasible:
        asked = self.asked
        limits = ", ".join(f"{limit / 2**30:.1f} GiB" for limit in asked.memory_limits_bytes)
        return Infeasible(
            f"no layout fits on the islands of {asked.islands.name}, whose devices offer {limits}",
            hint="use more devices, devices with more memory, shorter sequences, or fewer limits",
        )

    def _alone(
        self, island: int, *, share: float, window: float, exchange: Exchange = NOTHING, parties: int = 1, kept: int = 0
    ) -> Alone:
        asked, key = self.asked, (island, round(share), window, exchange, parties, kept)
        if key not in self.known:
            self.known[key] = alone(
                replace(asked.jobs[island], optimizer_parties=parties),
                share=share,
                memory_limit_bytes=asked.memory_limits_bytes[island] - kept,
                limits=asked.limits,
                window=window,
                exchange=exchange,
            )
        return self.known[key]

    def _rates(self, chains: Shape) -> list[float]:
        """Give the sequences a second of each chain, by what its islands do alone."""
        rates = [own.share / own.share_s if len(own) else 0.0 for own in self.first]
        return [max(sum(rates[island] for island in chain), 1e-9) for chain in chains]

    def _bound_s(self, shape: Shape) -> float:
        """Give a bound of a shape's steps by the rates that none of its islands exceeds, and what it does alone."""
        passed = [island for chain in shape if len(chain) > 1 for island in chain]
        if passed and not all(self.members and len(self.members[island].layouts) for island in passed):
            return np.inf
        own = [self.first[chain[0]] for chain in shape if len(chain) == 1]
        joint = sum(self.first[island].fastest for island in passed)

        def done(time_s: float) -> float:
            alone_ = sum(laws.rest(time_s) if not len(laws) else most_done(laws, time_s) for laws in own)
            return alone_ + joint * time_s

        low, high = 0.0, 1.0
        while done(high) < self.asked.batch:
            low, high = high, 2.0 * high
            if high > 1e12:
                return np.inf
        for _ in range(40):
            middle = (low + high) / 2.0
            low, high = (low, middle) if done(middle) >= self.asked.batch else (middle, high)
        return low

    def _configurations(self, chain: Chain, share: float, *, in_full: bool = True) -> tuple[Configurations, ...]:
        """Give what of a chain may take less than the best step for a share of the batch."""
        links = [self.asked.islands.link_of[frozenset(pair)] for pair in pairwise(chain)]
        own = [self.members[island] for island in chain]
        return configurations(own, links, share=share, below_s=self.bar_s, in_full=in_full)

    def _limits_of(self, chain: Chain) -> list[int]:
        return [self.asked.memory_limits_bytes[island] for island in chain]

    def _kept_bytes(self, chain: Chain, way: Way | None) -> int:
        """Give what each device of a chain keeps for a way of training that changes the mathematics."""
        if way is None:
            return 0
        jobs = [self.asked.jobs[island] for island in chain]
        devices = sum(job.cluster.devices for job in jobs)
        return round(way.state_bytes * total_parameters(jobs[0].model) / devices)

    def _several(self, shape: Shape) -> tuple[Solution | None, float]:
        """Solve for chains that train replicas, or for one island.

        Windows are widened until nothing outside them matters, as long as they can be.
        """
        links, batch = self.asked.islands.link_of, self.asked.batch
        tree = widest_tree(len(shape), joined_edges(shape, links))
        if len(shape) > 1 and not tree:
            return None, np.inf
        rates = self._rates(shape)
        shares = [batch * rate / sum(rates) for rate in rates]
        across, exchange = self._exchange(len(shape), tree)
        best, bound_s = self._shared(shape, shares, across, exchange, None)
        if len(shape) > 1:
            ways = exchange_ways(
                self.asked.jobs[0],
                self.asked.allow,
                parties=len(shape),
                edges=joined_edges(shape, links),
                tree=tree,
                step_s=batch / sum(rates),
            )
            for way in ways:
                other, left_s = self._shared(shape, shares, Across.COPIES, way.exchange, way)
                bound_s = min(bound_s, left_s)
                if other is not None and (best is None or other.step_time_s < best.step_time_s):
                    best = other
        return best, bound_s

    def _shared(
        self, shape: Shape, shares: Sequence[float], across: Across | None, exchange: Exchange, way: Way | None
    ) -> tuple[Solution | None, float]:
        """Solve for chains that train replicas, or one island, and exchange what they learn in one way."""
        cut_over = len(shape) if across is Across.SHARDS else 1
        best: Solution | None = None
        windows, bound_s = [NARROWEST] * len(shape), 0.0
        if np.isfinite(self.bar_s) and max(map(len, shape)) > 1:
            sides = [
                self._side(*each, exchange, parties=cut_over, way=way, cuts=0)
                for each in zip(shape, shares, windows, strict=True)
            ]
            bound_s = least_s([side.laws for side in sides], batch=self.asked.batch)
            if bound_s >= self.bar_s * (1 - ROUNDING):
                return None, bound_s
        for _ in range(ROUNDS):
            sides = [
                self._side(*each, exchange, parties=cut_over, way=way)
                for each in zip(shape, shares, windows, strict=True)
            ]
            if not all(len(side.laws) for side in sides):
                return None, np.inf
            sizes = [side.sizes for side in sides]
            dealt, bound_s = best_shares([side.laws for side in sides], batch=self.asked.batch, sizes=sizes)
            if dealt is not None:
                parties = tuple(
                    side.party(row, sequences=sequences, busiest=busiest)
                    for side, row, sequences, busiest in zip(
                        sides, dealt.layout, dealt.sequences, dealt.busiest, strict=True
                    )
                )
                step_s = max(party.own_s + party.exposed_s for party in parties)
                best = Solution(
                    shape=shape, across=across, exchange=exchange, way=way, parties=parties, step_time_s=step_s
                )
                bound_s = min(bound_s, step_s)
            bar_s = self.bar_s if best is None else min(best.step_time_s, self.bar_s)
            needed = [
                max(*pair) for pair in zip(windows, windows_needed(sides, bar_s, batch=self.asked.batch), strict=True)
            ]
            if bound_s >= bar_s * (1 - ROUNDING) or needed == windows:
                break
            windows = needed
        return best, bound_s

    def _exchange(self, parties: int, tree: Sequence[Edge]) -> tuple[Across | None, Exchange]:
        """Give the exchange that takes less where nothing hides it; of equals, copies."""
        if parties == 1:
            return None, NOTHING
        every = [(across, exchange_of(self.asked.jobs[0], parties, tree, across)) for across in Across]
        return min(every, key=lambda each: each[1].gradients_s + each[1].parameters_s)

    def _side(
        self,
        chain: Chain,
        share: float,
        window: float,
        exchange: Exchange,
        *,
        parties: int,
        way: Way | None,
        cuts: int = CUTS_OF_SHARES,
    ) -> Side:
        """Give the laws of a chain; those of islands alone know that the optimizer's states are cut over parties."""
        if len(chain) == 1:
            job, kept = self.asked.jobs[chain[0]], self._kept_bytes(chain, way)
            found = self._alone(chain[0], share=share, window=window, exchange=exchange, parties=parties, kept=kept)
            return Side(
                chain=chain,
                job=replace(job, optimizer_parties=parties),
                laws=found.laws,
                layouts=found.layouts,
                cuts=(),
            )
        return self._chain_side(chain, share, exchange, way, most=cuts)

    def _chain_side(self, chain: Chain, share: float, exchange: Exchange, way: Way | None, *, most: int) -> Side:
        """Give the laws of a chain's best configurations at a share of the batch, of which `most` are cut."""
        bar_s, job = self.bar_s, self.asked.jobs[chain[0]]
        every = self._configurations(chain, share, in_full=False)
        ahead = choices(every, share=share, batch=self.asked.batch, exchange=exchange, below_s=bar_s)
        cuts: list[ChainCut] = []
        kept = self._kept_bytes(chain, way)
        best, limits = np.inf, [limit - kept for limit in self._limits_of(chain)]
        bounds: list[tuple[int, float]] = []
        for place in range(min(most, len(ahead))):
            if ahead.share_s[place] >= min(best, bar_s):
                break
            found, row = every[int(ahead.kind[place])], int(ahead.row[place])
            sequences = int(found.sequences[row])
            total = max(-(-round(share) // sequences), 1)
            solved = best_chain_cut(
                found, row, total=total, memory_limits_bytes=limits, below_s=2.0 * bar_s, known=self.figures
            )
            bounds.append((total, solved.bound_s))
            if solved.cut is not None:
                cuts.append(solved.cut)
                best = min(best, solved.cut.step_time_s * share / (total * sequences))
        fastest = sum(self.first[island].fastest for island in chain)
        exposed_s = exposed_exchange_s(
            job,
            exchange,
            forward_s=np.array([sum(cut.forward_s) for cut in cuts]),
            backward_s=np.array([sum(cut.backward_s) for cut in cuts]),
        )
        laws = chain_laws(cuts, share, ahead.rest(bounds), fastest, exposed_s)
        return Side(chain=chain, job=job, laws=laws, layouts=None, cuts=tuple(cuts))

"""Are the intervals and the ranking right? Planted effects, no model, simulated studies.

    python benchmarks/calibration.py --repeats 2000

Answers are simulated where the truth is known: a word has a rate at which it is answered, a seed
and a word shift it, and a part of the answers is drawn anew by training. The same functions that
analyse a study then say what they find. The peer chooses as most searches do: one seed each, the
largest score wins.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tuning.mixed_effects import Run, SeedSpread, estimate, mean_of_items, spread_over_seeds
from tuning.ranking import compare_with

REDRAWN = 0.4
"""Share of answers that training draws anew; about 20 % of all then change."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What simulated trainings and words differ by."""

    num_words: int = 300
    num_templates: int = 3
    seed_deviation: float = 0.01
    word_deviation: float = 0.02
    word_seed_deviation: float = 0.02

    def words(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw words: the rate of each item, and what training does to each word."""
        rates_W = rng.uniform(0.4, 0.6, self.num_words)
        return rates_W, _uniform(rng, self.word_deviation, self.num_words)

    def base(self, rng: np.random.Generator, rates_W: np.ndarray) -> np.ndarray:
        """Return the untouched model's answers, an item for each word and template."""
        rates_N = np.repeat(rates_W, self.num_templates)
        return (rng.random(len(rates_N)) < rates_N).astype(float)

    def run(
        self,
        rng: np.random.Generator,
        effect: float,
        rates_W: np.ndarray,
        shifts_W: np.ndarray,
        base_N: np.ndarray,
    ) -> Run:
        """Return the gain of one training whose true effect is `effect`."""
        seed = float(np.clip(rng.normal(0, self.seed_deviation), -0.03, 0.03))
        own_W = shifts_W + _uniform(rng, self.word_seed_deviation, self.num_words)
        rates_N = np.repeat(rates_W + (effect + seed + own_W) / REDRAWN, self.num_templates)
        drawn_N = rng.random(len(base_N)) < REDRAWN
        after_N = np.where(drawn_N, rng.random(len(base_N)) < rates_N, base_N)
        words_N = np.repeat(np.arange(self.num_words), self.num_templates)
        return mean_of_items(after_N - base_N, words_N, self.num_words)


def _uniform(rng: np.random.Generator, deviation: float, size: int) -> np.ndarray:
    return rng.uniform(-1, 1, size) * deviation * np.sqrt(3)


# The rate of an item that is drawn anew is its word's rate plus the shift over the share that is
# drawn, so the mean change of all answers is the shift itself.


@dataclass(frozen=True, kw_only=True)
class GainResult:
    """What intervals of gains do over many simulated studies."""

    effect: float
    num_seeds: int
    num_words: int
    seed_deviation: float
    is_borrowed: bool
    repeats: int
    coverage: float
    """Share of intervals that hold the truth; .95 is promised."""
    rejected: float
    """Share of intervals that exclude 0: type-I error, or power."""
    mean_width: float


def gain_results(
    world: World, effect: float, num_seeds: int, repeats: int, seed: int, borrowed: int = 0
) -> GainResult:
    """Simulate gains of one configuration.

    Args:
        world: What is simulated.
        effect: True gain, as a rate.
        num_seeds: Trainings.
        repeats: Simulated studies.
        seed: Of the simulation.
        borrowed: Seeds of a repeated default, whose spread a single training borrows.
    """
    rng = np.random.default_rng([seed, num_seeds, borrowed, world.num_words])
    covered = rejected = 0
    width = 0.0
    for _ in range(repeats):
        found = estimate(*_study(world, rng, effect, num_seeds, borrowed))
        covered += found.low <= effect <= found.high
        rejected += found.direction != 0
        width += (found.high - found.low) / repeats
    return GainResult(
        effect=effect,
        num_seeds=num_seeds,
        num_words=world.num_words,
        seed_deviation=world.seed_deviation,
        is_borrowed=borrowed > 0,
        repeats=repeats,
        coverage=covered / repeats,
        rejected=rejected / repeats,
        mean_width=width,
    )


def _study(
    world: World, rng: np.random.Generator, effect: float, num_seeds: int, borrowed: int
) -> tuple[list[Run], SeedSpread | None]:
    rates_W, shifts_W = world.words(rng)
    base_N = world.base(rng, rates_W)
    runs = [world.run(rng, effect, rates_W, shifts_W, base_N) for _ in range(num_seeds)]
    default = [world.run(rng, 0.0, rates_W, shifts_W, base_N) for _ in range(borrowed)]
    return runs, spread_over_seeds([default]) if borrowed else None


@dataclass(frozen=True, kw_only=True)
class PowerResult:
    """Whether effects of the stated size are found as often as stated."""

    num_seeds: int
    num_words: int
    repeats: int
    stated: float
    """Median over studies of the smallest gain said to be found with 80 % power."""
    power: float
    """Share of studies that find an effect of just that size."""


def power_result(world: World, num_seeds: int, repeats: int, seed: int) -> PowerResult:
    """Plant an effect of the stated size and count how often it is found."""
    rng = np.random.default_rng([seed, num_seeds, 7])
    stated = []
    for _ in range(repeats):
        found = estimate(*_study(world, rng, 0.0, num_seeds, 0))
        stated.append(found.detectable)
    effect = float(np.median(stated))
    planted = gain_results(world, effect, num_seeds, repeats, seed + 1)
    return PowerResult(
        num_seeds=num_seeds,
        num_words=world.num_words,
        repeats=repeats,
        stated=effect,
        power=planted.rejected,
    )


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What rankings do over many simulated searches in which nothing differs, or one thing."""

    num_configurations: int
    default_seeds: int
    seeds: int
    repeats: int
    advantage: float
    """True advantage of one configuration over all others."""
    false_winner: float
    """Share of searches in which a configuration that is no better is said to beat the default."""
    false_winner_bound: float
    """One-sided 95 % upper bound of that share."""
    found: float
    """Share in which the better one is said to beat the default."""
    best_in_ties: float
    """Share in which the truly best is in the set not told from the best."""
    peer_false_winner: float
    """Share in which the largest of single runs is not the default: what argmax calls a winner."""
    peer_optimism: float
    """Mean of what argmax shows for its winner above the truth, as a rate."""


def search_result(
    world: World,
    num_configurations: int,
    default_seeds: int,
    seeds: int,
    repeats: int,
    seed: int,
    advantage: float = 0.0,
) -> SearchResult:
    """Simulate searches of configurations that are all alike, but for the first, maybe."""
    rng = np.random.default_rng([seed, num_configurations, default_seeds, seeds])
    false, found, kept, peer, optimism = 0, 0, 0, 0, 0.0
    for _ in range(repeats):
        groups = _search(world, rng, num_configurations, default_seeds, seeds, advantage)
        default, *others = groups
        spread = spread_over_seeds(groups)
        winners = [
            compared.is_told_apart and compared.difference.value > 0
            for compared in compare_with(default, others, spread)
        ]
        false += any(winners[1:] if advantage else winners)
        found += winners[0]
        kept += _is_kept(groups, spread)
        singles = [runs[0].value for runs in groups]
        chosen = int(np.argmax(singles))
        peer += chosen != 0
        optimism += (singles[chosen] - (advantage if chosen == 1 else 0.0)) / repeats
    return SearchResult(
        num_configurations=num_configurations,
        default_seeds=default_seeds,
        seeds=seeds,
        repeats=repeats,
        advantage=advantage,
        false_winner=false / repeats,
        false_winner_bound=_upper(false, repeats),
        found=found / repeats,
        best_in_ties=kept / repeats,
        peer_false_winner=peer / repeats,
        peer_optimism=optimism,
    )


def _search(
    world: World,
    rng: np.random.Generator,
    num_configurations: int,
    default_seeds: int,
    seeds: int,
    advantage: float,
) -> list[list[Run]]:
    rates_W, shifts_W = world.words(rng)
    base_N = world.base(rng, rates_W)

    def runs(count: int, effect: float) -> list[Run]:
        return [world.run(rng, effect, rates_W, shifts_W, base_N) for _ in range(count)]

    effects = [advantage] + [0.0] * (num_configurations - 1)
    return [runs(default_seeds, 0.0), *(runs(seeds, effect) for effect in effects)]


def _is_kept(groups: Sequence[Sequence[Run]], spread: SeedSpread | None) -> bool:
    """Whether the truly best, which is the second group, is not told from the one that leads."""
    means = [float(np.mean([run.value for run in runs])) for runs in groups]
    leader = int(np.argmax(means))
    if leader == 1:
        return True
    others = [runs for place, runs in enumerate(groups) if place != leader]
    place = 1 if leader > 1 else 0
    return not compare_with(groups[leader], others, spread)[place].is_told_apart


def _upper(count: int, repeats: int) -> float:
    """Return the one-sided 95 % upper bound of a share (Clopper and Pearson)."""
    from scipy import stats

    return float(stats.beta.ppf(0.95, count + 1, repeats - count)) if count < repeats else 1.0


def main() -> None:
    """Print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="Write the figures to this file.")
    arguments = parser.parse_args()
    repeats, seed = arguments.repeats, arguments.seed
    found: dict[str, list[dict[str, object]]] = {"gains": [], "power": [], "searches": []}
    print("gains: effect seeds words seed-deviation coverage excludes-0 width")
    for num_words, deviation in ((300, 0.005), (300, 0.015), (1000, 0.01)):
        world = World(num_words=num_words, seed_deviation=deviation)
        for num_seeds, borrowed in ((3, 0), (4, 0), (5, 0), (1, 3), (1, 5)):
            for effect in (0.0, 0.05, -0.05):
                gained = gain_results(world, effect, num_seeds, repeats, seed, borrowed)
                found["gains"].append(asdict(gained))
                print(
                    f"  {100 * effect:+.0f} points, {num_seeds} seed(s)"
                    f"{f' and {borrowed} of the default' if borrowed else ''}, {num_words} words, "
                    f"{100 * deviation:.1f}: {100 * gained.coverage:.1f} %, "
                    f"{100 * gained.rejected:.1f} %, {100 * gained.mean_width:.1f} points",
                    flush=True,
                )
    for num_seeds in (3, 5):
        power = power_result(World(num_words=1000), num_seeds, repeats, seed)
        found["power"].append(asdict(power))
        print(
            f"power: {num_seeds} seeds, 1000 words: stated {100 * power.stated:.1f} points for "
            f"80 %, reached {100 * power.power:.1f} %",
            flush=True,
        )
    for count, default_seeds, seeds, advantage in (
        (20, 3, 1, 0.0),
        (20, 5, 1, 0.0),
        (8, 3, 3, 0.0),
        (50, 3, 1, 0.0),
        (20, 5, 1, 0.08),
        (8, 3, 3, 0.05),
    ):
        result = search_result(World(), count, default_seeds, seeds, repeats, seed, advantage)
        found["searches"].append(asdict(result))
        print(
            f"search: {count} configurations with {seeds} seed(s), default {default_seeds}, "
            f"advantage of one {100 * advantage:.0f}: false winner "
            f"{100 * result.false_winner:.1f} % (at most {100 * result.false_winner_bound:.1f} %), "
            f"found {100 * result.found:.1f} %, best in the set {100 * result.best_in_ties:.1f} %; "
            f"argmax of one seed: {100 * result.peer_false_winner:.1f} % winners, "
            f"{100 * result.peer_optimism:+.1f} "
            "points too good",
            flush=True,
        )
    print(f"{repeats} repeats each, seed {seed}, numpy {np.__version__}, {platform.machine()}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()

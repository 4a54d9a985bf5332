"""How often the 95 % intervals hold the truth, on simulated runs whose ASR is known.

`python -m tests.benchmarks.coverage [--quick]` prints a row for every design and one
JSON object as its last line. Where fewer than ten base prompts differ in outcome,
counts are so few that no interval comes near 95 %; there it must not cover less.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from axolotl_donod.evaluation.bounds import (
    ENOUGH_CLUSTERS,
    difference_bounds,
    share_bounds,
)

_DRAWS, _QUICK_DRAWS = 2_000, 300
_BLOCK = 100
FULL, HALF, SMALL, TINY = (440, 21), (100, 5), (40, 5), (10, 21)


@dataclass(frozen=True)
class Design:
    """Runs of `prompts` base prompts under `attacks`.

    Success rates of the prompts follow a beta distribution; `alike` is the correlation
    of two rows of a prompt. With `other` a second model is compared, whose prompts and
    rows come out as those of the first with probability `shared`.
    """

    prompts: int
    attacks: int
    rate: float
    alike: float
    other: float | None = None
    shared: float = 0.7

    @property
    def name(self) -> str:
        """What stands in the table."""
        rate = f"{self.rate:g}" + ("" if self.other is None else f" vs {self.other:g}")
        return f"{self.prompts} x {self.attacks}, {rate}, alike {self.alike:g}"


def designs() -> Iterator[Design]:
    """From the full grid of the benchmark to ten prompts, from rare to common."""
    for prompts, attacks in (FULL, (440, 1), HALF, SMALL, TINY):
        for rate in (0.005, 0.02, 0.1, 0.3, 0.5, 0.9, 0.98):
            for alike in (0.1, 0.4):
                yield Design(prompts, attacks, rate, alike)
    for prompts, attacks in ((440, 5), (440, 1), HALF, SMALL, TINY):
        for rate, other in ((0.3, 0.2), (0.5, 0.5), (0.1, 0.01), (0.02, 0.01)):
            for alike in (0.1, 0.4):
                yield Design(prompts, attacks, rate, alike, other)


@dataclass(frozen=True)
class Coverage:
    """Share of draws whose interval holds the truth, and typical widths."""

    covered: float
    width: float
    differing: float


def coverage(
    design: Design, draws: int, seed: int = 0, resamples: int = 999
) -> Coverage:
    """Simulate a design and count."""
    rng = np.random.default_rng(seed)
    held, widths, differing = [], [], []
    sizes = np.full(design.prompts, float(design.attacks))
    for block in range(0, draws, _BLOCK):
        outcomes = _outcomes(design, min(_BLOCK, draws - block), rng)
        if design.other is None:
            truth = design.rate
            totals = outcomes[0].sum(2).astype(float)
            low, high, _ = share_bounds(totals, sizes, resamples, seed=block)
            mixed = np.minimum((totals > 0).sum(1), (totals < sizes).sum(1))
        else:
            truth = design.rate - design.other
            change = outcomes[0].astype(float) - outcomes[1]
            squares = (change**2).sum(2)
            low, high, *_ = difference_bounds(
                change.sum(2), squares, sizes, resamples, seed=block
            )
            mixed = (squares > 0).sum(1)
        held.append((low <= truth) & (truth <= high))
        widths.append(high - low)
        differing.append(mixed)
    return Coverage(
        float(np.concatenate(held).mean()),
        float(np.concatenate(widths).mean()),
        float(np.concatenate(differing).mean()),
    )


def _outcomes(
    design: Design, draws: int, rng: np.random.Generator
) -> list[NDArray[np.bool_]]:
    shape = (draws, design.prompts)
    latent, chance = rng.random(shape), rng.random((*shape, design.attacks))
    found = [chance < _rates(latent, design.rate, design.alike)[..., None]]
    if design.other is not None:
        latent = np.where(rng.random(shape) < design.shared, latent, rng.random(shape))
        kept = rng.random(chance.shape) < design.shared
        chance = np.where(kept, chance, rng.random(chance.shape))
        found.append(chance < _rates(latent, design.other, design.alike)[..., None])
    return found


def _rates(
    latent: NDArray[np.float64], rate: float, alike: float
) -> NDArray[np.float64]:
    scale = (1 - alike) / alike
    # The tables of the quantiles are slow; a fine grid of them is not.
    grid = np.linspace(0, 1, 20_001)
    return np.interp(latent, grid, beta.ppf(grid, rate * scale, (1 - rate) * scale))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    draws = _QUICK_DRAWS if parser.parse_args().quick else _DRAWS
    print(f"{draws:,} draws; 93 to 97 % is the aim\n")
    print("| design | differing prompts | covered | mean width |")
    print("|:---|---:|---:|---:|")
    trusted, few = [], []
    for design in designs():
        found = coverage(design, draws)
        print(
            f"| {design.name} | {found.differing:.0f} | {100 * found.covered:.1f} % | "
            f"{100 * found.width:.2f} % |",
            flush=True,
        )
        enough = found.differing >= 1.5 * ENOUGH_CLUSTERS
        (trusted if enough else few).append(found.covered)
    print()
    result = {
        "draws": draws,
        "lowest": min(trusted),
        "highest": max(trusted),
        "inside": float(np.mean([0.93 <= c <= 0.97 for c in trusted])),
        "lowest_few": min(few),
        "highest_few": max(few),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

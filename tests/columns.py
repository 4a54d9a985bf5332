"""Simulated score columns of rows, and of clones that differ in known ways."""

import numpy as np

PLAIN = (
    "ce",
    "entropy",
    "ce_minus_entropy",
    "el2n",
    "token_accuracy",
    "effective_rank",
    "ce_std",
    "ce_max",
    "ce_start",
    "ce_end",
)


def make_columns(n_rows=40, seed=0, **replace):
    """Every score that always exists, independent of each other."""
    generator = np.random.default_rng(seed)
    columns = {name: generator.random(n_rows) for name in PLAIN}
    columns["n_tokens"] = generator.integers(1, 50, n_rows)
    columns["w_dot_g"] = generator.normal(size=n_rows)
    columns["g_norm_sq"] = generator.random(n_rows) * 30 + 0.1
    return columns | replace


def simulated(n_rows=1500, n_clones=300, *, shifts=None, shorter=1.0, seed=0):
    """Rows and clones of known separation, as (rows, clones, kinds, parents).

    The logarithm of every score is normal with deviation one; that of a kind's clones
    lies `shifts[kind][name]` higher. Clones have `shorter` times the length of rows.
    """
    shifts = shifts or {"shuffled": {}, "truncated": {}}
    generator = np.random.default_rng(seed)
    kinds = np.array([list(shifts)[i % len(shifts)] for i in range(n_clones)], object)
    names = (*PLAIN, "w_dot_g", "g_norm_sq")
    rows, clones = (
        {name: generator.normal(size=n) for name in names} for n in (n_rows, n_clones)
    )
    for name in names:
        clones[name] += [shifts[kind].get(name, 0.0) for kind in kinds]
    for columns, factor in ((rows, 1.0), (clones, shorter)):
        length = np.exp(generator.normal(5, 0.7, columns["ce"].size)) * factor
        for name in names:
            columns[name] = np.exp(columns[name])
        columns["n_tokens"] = np.maximum(length, 1).astype(np.int64)
    parents = generator.permutation(n_rows)[np.arange(n_clones) % n_rows]
    return rows, clones, kinds, parents

"""Seeded randomness: an independent stream for each part of the world, and noise that depends on a pair only."""

import numpy as np
import numpy.typing as npt

# One number for each part. A stream is (seed, part, day, chunk), so that the draws of one part do not shift another's.
CATALOGUE, QUERIES, USERS, LOG, JUDGMENTS = range(5)


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random generator of a key: independent of all other keys, and the same on every machine."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def pair_uniform(left: npt.ArrayLike, right: npt.ArrayLike, salt: int) -> npt.NDArray[np.float64]:
    """Uniform noise in [0, 1) that is a function of the pair only (finaliser of splitmix64); shapes broadcast."""
    with np.errstate(over="ignore"):
        key = (
            np.asarray(left, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            + np.asarray(right, np.uint64) * np.uint64(0xD1B54A32D192ED03)
            + np.uint64(salt) * np.uint64(0x8CB92BA72F3D8DD7)
        )
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key = key ^ (key >> np.uint64(31))
    return (key >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(generator: np.random.Generator, weights: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.int64]:
    """Draw `size` indices with replacement, with probabilities in proportion to `weights`."""
    cumulative = np.cumsum(weights)
    position = np.searchsorted(cumulative, generator.random(size) * cumulative[-1], side="right")
    return np.minimum(position, len(weights) - 1)

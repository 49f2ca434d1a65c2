"""Seeded randomness: one independent stream a part of the world, and noise that belongs to a pair."""

import numpy as np
import numpy.typing as npt

# One number a part; a stream is (seed, part, day, chunk), so that no part's draws shift another's.
CATALOGUE, QUERIES, USERS, LOG, JUDGMENTS = range(5)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of one part: independent of every other key, the same on every machine."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def pair_uniform(left: npt.ArrayLike, right: npt.ArrayLike, salt: int) -> npt.NDArray[np.float64]:
    """Uniform [0, 1) noise that is a function of the pair only (splitmix64's finaliser); shapes broadcast."""
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
    """Indices drawn with replacement, in proportion to `weights`."""
    cumulative = np.cumsum(weights)
    position = np.searchsorted(cumulative, generator.random(size) * cumulative[-1], side="right")
    return np.minimum(position, len(weights) - 1)

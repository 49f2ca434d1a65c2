"""Simulated users: activity, arrival, tolerance and tastes. It must not know items or what is shown."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prectr.data.marketplace import constants, randomness
from prectr.data.marketplace.catalogue import Floats, Ints, numbered_ids

AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
CITY_TIERS = ("tier-1", "tier-2", "tier-3")
DEVICES = ("android", "ios", "desktop")


@dataclass(frozen=True)
class Users:
    """U users as columns; row u is user `ids[u]`."""

    ids: pa.Array
    age: Ints
    city: Ints
    device: Ints
    activity: Floats  # relative rate of requests
    arrival: Ints  # first day on which the user may search, from 0
    tolerance: Floats  # t_u
    price_preference: Floats  # 0..1, the preferred price rank within a type
    favourite_tops: Ints  # (U, 2)
    taste: npt.NDArray[np.float32]  # (U, TASTE_DIMENSIONS)


def make_users(seed: int, size: int, days_of_scale: int, placebo: bool, tops: int) -> Users:
    """Draw `size` users with favourites among `tops` >= 1 top categories.

    Arrivals depend on the days of the scale, not on the days that are simulated.
    """
    rng = randomness.stream(seed, randomness.USERS)
    age = rng.choice(len(AGE_BANDS), size, p=[0.2, 0.3, 0.22, 0.16, 0.12]).astype(np.int32)
    city = rng.choice(len(CITY_TIERS), size, p=[0.35, 0.35, 0.30]).astype(np.int32)
    device = rng.choice(len(DEVICES), size, p=[0.55, 0.3, 0.15]).astype(np.int32)
    activity = rng.permutation((np.arange(size) + 1.0) ** -constants.USER_ZIPF)
    late = rng.random(size) >= constants.ARRIVED_AT_START
    arrival = np.where(late, (rng.random(size) * days_of_scale).astype(np.int32), 0).astype(np.int32)
    explained = constants.TOLERANCE_AGE * (age - 1.7)
    unexplained_sd = np.sqrt(constants.TOLERANCE_USER_SD**2 - (constants.TOLERANCE_AGE * 1.27) ** 2)
    tolerance = explained + unexplained_sd * rng.standard_normal(size)
    price = np.clip(0.62 - 0.12 * city + rng.normal(0, 0.25, size), 0.0, 1.0)
    first = rng.integers(0, tops, size)
    second = (first + rng.integers(1, max(tops, 2), size)) % tops  # another category, if there are several
    return Users(
        ids=numbered_ids("u", size),
        age=age,
        city=city,
        device=device,
        activity=activity,
        arrival=arrival,
        tolerance=np.zeros(size) if placebo else tolerance,
        price_preference=price,
        favourite_tops=np.stack([first, second], axis=1).astype(np.int32),
        taste=rng.standard_normal((size, constants.TASTE_DIMENSIONS), np.float32),
    )


def users_table(users: Users) -> pa.Table:
    """The canonical `users.parquet`: attributes that a platform would know."""
    return pa.table(
        {
            "user_id": users.ids,
            "age_band": pa.array(AGE_BANDS).take(pa.array(users.age)),
            "city_tier": pa.array(CITY_TIERS).take(pa.array(users.city)),
            "device": pa.array(DEVICES).take(pa.array(users.device)),
        }
    )


def users_truth(users: Users) -> pa.Table:
    """`truth/users.parquet`: attributes that only the simulator knows."""
    columns = {
        "user_id": users.ids,
        "t_u": users.tolerance,
        "activity": users.activity,
        "arrival_day": users.arrival,
        "price_preference": users.price_preference,
        "favourite_top_1": users.favourite_tops[:, 0],
        "favourite_top_2": users.favourite_tops[:, 1],
    }
    columns |= {f"taste_{axis}": users.taste[:, axis] for axis in range(users.taste.shape[1])}
    return pa.table(columns)

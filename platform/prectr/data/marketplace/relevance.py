"""True relevance of an item to the intent of a query: the grade 0..3 and the continuous r.  [ours]

The grade compares what the title states with what the intent asks for (type, brand, model, colour, spec):

- same type, brand and model as asked: 3, minus 1 for each asked colour or spec that differs or is not stated;
  another model of the same series: 2 minus the same; another or no model of the brand: 1; all of these at least 1;
- same type, another or no brand: 1, or 0 if the intent asks for a model;
- a sibling type (same leaf, neither is an accessory): 1 if no model is asked and the brand is as asked, else 0;
- an accessory for an asked main product, or the reverse: 1 if the asked model is the same or, with no model asked, if
  the asked brand is the same, else 0; every other type: 0;
- an item that is sold for parts: one grade lower, at least 0.

r = low_g + (high_g - low_g) * (0.30 match + 0.45 completeness + 0.25 pair noise), in the band of the grade
(`constants.BANDS`), where match is the share of the asked attributes that the item meets (an attribute that is not
stated counts half) and completeness is the item's rank by how much its title states and how intact it is.
"""

import numpy as np
import numpy.typing as npt

from prectr.data.marketplace import constants
from prectr.data.marketplace.catalogue import ACCESSORY, SAME, SIBLING, Catalogue, Floats, taxonomy
from prectr.data.marketplace.queries import Queries
from prectr.data.marketplace.randomness import pair_uniform
from prectr.data.marketplace.vocabulary import FOR_PARTS

Indices = npt.NDArray[np.integer]

# Weight of each asked attribute in `match`; the type is always asked.
WEIGHT_TYPE, WEIGHT_BRAND, WEIGHT_MODEL, WEIGHT_SOFT = 0.4, 0.2, 0.3, 0.1
SERIES_CREDIT = 0.4  # share of the model's weight for another model of its series
TYPE_CREDIT = np.array([0.0, 0.4, 0.6, 1.0])  # share of the type's weight by relation: none, accessory, sibling, same
PAIR_SALT = 1


def grade_pairs(
    queries: Queries, items: Catalogue, query: Indices, item: Indices
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Grade and r of pairs of row numbers. `query` and `item` broadcast; both results have the broadcast shape."""
    tables = taxonomy()
    asked_brand, brand = queries.brand[query], items.brand[item]
    asked_model, model = queries.model[query], items.model[item]
    relation = tables.relation[queries.type[query], items.type[item]]
    brand_met = (asked_brand < 0) | (asked_brand == brand)
    same_model = asked_model == model
    model_met = (asked_model < 0) | same_model
    same_series = (model >= 0) & (tables.model_series[asked_model] == tables.model_series[model])
    same_type = relation == SAME

    missed = np.zeros(np.broadcast_shapes(query.shape, item.shape), np.int8)
    asked_weight = np.full(missed.shape, WEIGHT_TYPE, np.float32)
    credit = (WEIGHT_TYPE * TYPE_CREDIT).astype(np.float32)[relation]
    for asked, stated in ((queries.colour[query], items.colour[item]), (queries.spec[query], items.spec[item])):
        # A spec code means something only within its type.
        met = (asked >= 0) & (asked == stated) & same_type
        missed += (asked >= 0) & ~met
        asked_weight += WEIGHT_SOFT * (asked >= 0)
        credit += WEIGHT_SOFT * (met + 0.5 * ((asked >= 0) & (stated < 0)))
    asked_weight += WEIGHT_BRAND * (asked_brand >= 0) + WEIGHT_MODEL * (asked_model >= 0)
    credit += WEIGHT_BRAND * ((asked_brand >= 0) & brand_met)
    credit += WEIGHT_MODEL * (asked_model >= 0) * np.where(same_model, 1.0, SERIES_CREDIT * same_series)

    by_model = np.where(model_met, 3, np.where(same_series, 2, 1))
    if_same = np.where(brand_met, np.maximum(by_model - missed, 1), asked_model < 0)
    if_sibling = (asked_model < 0) & brand_met
    if_accessory = np.where(asked_model >= 0, same_model, (asked_brand >= 0) & brand_met)
    grade = np.select(
        [same_type, relation == SIBLING, relation == ACCESSORY], [if_same, if_sibling, if_accessory], default=0
    )
    grade = np.maximum(grade - (items.condition[item] == FOR_PARTS), 0).astype(np.int8)

    inside = inside_band(query, item, np.minimum(credit / asked_weight, 1.0), items.completeness[item])
    bands = np.array(constants.BANDS)
    low, high = bands[grade, 0], bands[grade, 1]
    return grade, (low + (high - low) * inside).astype(np.float32)


def inside_band(query: Indices, item: Indices, match: npt.NDArray[np.floating], completeness: Floats) -> Floats:
    """Place of a pair's r in the band of its grade, 0 low .. 1 high; `completeness` is the item's."""
    inside: Floats = (
        constants.WITHIN_MATCH * match
        + constants.WITHIN_COMPLETENESS * completeness
        + constants.WITHIN_PAIR * pair_uniform(query, item, PAIR_SALT)
    )
    return inside

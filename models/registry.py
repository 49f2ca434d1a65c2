"""Rankers by their configured names, and the function that builds one."""

from collections.abc import Callable

from models.baselines.daian import Daian
from models.baselines.deep_fm import DeepFM
from models.baselines.din import Din
from models.baselines.dnn import Dnn
from models.baselines.lr import LogisticRegression
from models.baselines.sukd import Sukd
from models.baselines.wide_deep import WideDeep
from models.baselines.xdeep_fm import XDeepFM
from models.encoder import TextEncoder
from models.prectr import Prectr
from models.prectr_v2 import PrectrV2
from models.ranker import Ranker
from prectr.contracts.model_config import FeatureSizes, ModelConfig

RANKERS: dict[str, Callable[[ModelConfig, FeatureSizes, TextEncoder], Ranker]] = {
    "lr": LogisticRegression,
    "dnn": Dnn,
    "wide-deep": WideDeep,
    "deepfm": DeepFM,
    "xdeepfm": XDeepFM,
    "din": Din,
    "sukd": Sukd,
    "daian": Daian,
    "prectr": Prectr,
    "prectr-v2": PrectrV2,
}


def build_ranker(config: ModelConfig, sizes: FeatureSizes, encoder: TextEncoder) -> Ranker:
    """Build the ranker `config.name`.

    The ranker takes ownership of `encoder` and sets which of its parameters train.

    Raises:
        ValueError: `sizes.text` differs from the encoder's width.
    """
    return RANKERS[config.name](config, sizes, encoder)

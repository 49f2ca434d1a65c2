"""A text encoder in ONNX Runtime over token pairs: batches of like length, and a memory of the pairs it saw last."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from prectr.core.errors import PrectrError
from prectr.relevance.tokenisation import PairTokens

SLOWER_THAN_ITS_PARTS = ["SkipLayerNormFusion"]
"""On a processor the fused kernel takes a quarter of the default encoder's time; the addition and the normalisation
that it replaces take a twentieth."""


def onnx_session(file: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU; `threads` of one call, 0 = all cores.

    Raises:
        PrectrError: the file is missing or no whole model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_THAN_ITS_PARTS
        )
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        what = str(error).strip().splitlines()[0]
        raise PrectrError(
            f"{file}: is missing, cut short or no ONNX model ({what}); build its artifact again."
        ) from None


class PairEncoder:
    """Runs an encoder over token pairs.

    Args:
        model: the ONNX file.
        outputs: what to read of it, each [pairs, width].
        threads: ONNX Runtime threads of one call; 0 = all cores.
        batch_size: most pairs of one call; those of a call have similar lengths.
        cached_pairs: pairs whose outputs are kept, the least recently used go first; 0 keeps none.
    """

    def __init__(
        self, model: Path, outputs: tuple[str, ...], threads: int = 0, batch_size: int = 256, cached_pairs: int = 0
    ) -> None:
        self._session = onnx_session(model, threads)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._outputs, self._batch_size = outputs, batch_size
        widths = {node.name: node.shape[1] for node in self._session.get_outputs()}
        self._widths = [int(widths[name]) for name in outputs]
        self.cache = OutputCache(cached_pairs, self._widths) if cached_pairs else None

    def encode(self, tokens: PairTokens, rows: np.ndarray) -> list[np.ndarray]:
        """The outputs of some pairs, in their order: float32 [len(rows), width] each."""
        if self.cache is None:
            return self._run(tokens, rows)
        keys = [_key(tokens, row) for row in rows.tolist()]
        slots = np.array([self.cache.find(key) for key in keys], np.int64)
        unknown = np.flatnonzero(slots < 0)
        found = self.cache.read(slots)
        if len(unknown):
            made = self._run(tokens, rows[unknown])
            for known, new in zip(found, made):
                known[unknown] = new
            self.cache.write([keys[place] for place in unknown], made)
        return found

    def _run(self, tokens: PairTokens, rows: np.ndarray) -> list[np.ndarray]:
        made = [np.empty((len(rows), width), np.float32) for width in self._widths]
        for chosen in tokens.batches(rows, self._batch_size):
            feed = {name: array for name, array in tokens.padded(rows[chosen]).items() if name in self._inputs}
            for array, part in zip(made, self._session.run(self._outputs, feed)):
                array[chosen] = part
        return made


class OutputCache:
    """Outputs by token ids, in one array each; a slot is taken over when its pair was not used for longest.

    Attributes:
        hits: look-ups that were answered.
        misses: those that were not.
    """

    def __init__(self, capacity: int, widths: list[int]) -> None:
        self._capacity = capacity
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self._values = [np.empty((capacity, width), np.float32) for width in widths]
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, key: bytes) -> int:
        """Slot of a pair, which is now the most recently used one; -1 if there is none."""
        slot = self._slots.get(key, -1)
        if slot < 0:
            self.misses += 1
        else:
            self.hits += 1
            self._slots.move_to_end(key)
        return slot

    def read(self, slots: np.ndarray) -> list[np.ndarray]:
        """Values of slots, copied; what stands where a slot is -1 means nothing."""
        return [values[slots] for values in self._values]

    def write(self, keys: list[bytes], made: list[np.ndarray]) -> None:
        """Keep the outputs [len(keys), width] of pairs; of more than the capacity, the last ones."""
        for place, key in enumerate(keys):
            slot = self._slots.get(key, -1)
            if slot < 0:
                slot = len(self._slots) if len(self._slots) < self._capacity else self._slots.popitem(last=False)[1]
            self._slots[key] = slot
            for values, rows in zip(self._values, made):
                values[slot] = rows[place]


def _key(tokens: PairTokens, row: int) -> bytes:
    """A pair's token ids, and where its title begins: equal keys are equal inputs."""
    ids = tokens.values[tokens.offsets[row] : tokens.offsets[row + 1]]
    return ids.tobytes() + tokens.query_tokens[row].tobytes()

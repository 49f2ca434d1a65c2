"""Text encoder in ONNX Runtime over token pairs, with batches of similar length and a cache of outputs.

It knows token pairs and output names only, no artifact: `encoder_session` and the ranker's scorer build on it.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from prectr.core.errors import PrectrError, shorten
from prectr.core.lru import ENTRY_BYTES, LruCache
from prectr.relevance.tokenisation import PairTokens

_KEY_BYTES = ENTRY_BYTES + 48 + 32
"""Bytes of a key beside its content, and of the number of its slot."""
SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Optimisations of ONNX Runtime to turn off. On a CPU this fused kernel takes a quarter of the default encoder's time;
the addition and the normalisation that it replaces take a twentieth."""


def onnx_session(file: Path, threads: int) -> Any:
    """Open an ONNX Runtime session on the CPU with `threads` threads per call; 0 = all cores.

    Raises:
        PrectrError: the file is missing or no complete model.
    """
    # ONNX Runtime reads it on import; else it sends events to its maker, and leaves a file in the temporary directory.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = shorten(error)
        raise PrectrError(
            f"{file}: is missing, cut short or no ONNX model ({reason}); build its artifact again."
        ) from None


class PairEncoder:
    """Runs an encoder over token pairs.

    Args:
        model: the ONNX file.
        outputs: names of the outputs to read, each [pairs, width].
        threads: ONNX Runtime threads of one call; 0 = all cores.
        batch_size: pairs of one call, at most; the pairs of a call have similar lengths.
        cache_bytes: memory for outputs of pairs; the least recently used are dropped first. 0 caches none.
    """

    def __init__(
        self, model: Path, outputs: tuple[str, ...], threads: int = 0, batch_size: int = 256, cache_bytes: int = 0
    ) -> None:
        self._session = onnx_session(model, threads)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._outputs, self._batch_size = outputs, batch_size
        widths = {node.name: node.shape[1] for node in self._session.get_outputs()}
        self._widths = [int(widths[name]) for name in outputs]
        self.cache = OutputCache(cache_bytes, self._widths) if cache_bytes else None

    def encode(self, tokens: PairTokens, rows: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs of the pairs `rows`, in their order: float32 [len(rows), width] each."""
        if self.cache is None:
            return self._run(tokens, rows)
        keys = pair_keys(tokens, rows)
        slots = self.cache.find(keys)
        uncached = np.flatnonzero(slots < 0)
        outputs = self.cache.read(slots)
        if len(uncached):
            computed = self._run(tokens, rows[uncached])
            for output, values in zip(outputs, computed):
                output[uncached] = values
            self.cache.write([keys[index] for index in uncached], computed)
        return outputs

    def _run(self, tokens: PairTokens, rows: np.ndarray) -> list[np.ndarray]:
        outputs = [np.empty((len(rows), width), np.float32) for width in self._widths]
        for batch in tokens.batches(rows, self._batch_size):
            feed = {name: array for name, array in tokens.padded(rows[batch]).items() if name in self._inputs}
            for output, values in zip(outputs, self._session.run(self._outputs, feed)):
                output[batch] = values
        return outputs


class OutputCache:
    """Cache of outputs by token ids: one array for each output, with a slot for each pair.

    The operating system gives memory to a slot when it is first written. Slots of dropped pairs are used again.

    Args:
        capacity_bytes: largest memory of keys and outputs.
        widths: numbers of each output of a pair.
    """

    def __init__(self, capacity_bytes: int, widths: list[int]) -> None:
        entry_bytes = _KEY_BYTES + np.dtype(np.float32).itemsize * sum(widths)
        self._slots: LruCache[bytes, int] = LruCache(capacity_bytes, lambda key, _: entry_bytes + len(key))
        self._entry_bytes = entry_bytes
        self._values = [np.empty((capacity_bytes // entry_bytes, width), np.float32) for width in widths]
        self._free: list[int] = []
        self._fresh = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def used(self) -> int:
        """Estimated bytes of the entries."""
        return self._slots.used

    @property
    def hits(self) -> int:
        """Look-ups that found their pair."""
        return self._slots.hits

    @property
    def misses(self) -> int:
        """Look-ups that did not find their pair."""
        return self._slots.misses

    def find(self, keys: list[bytes]) -> np.ndarray:
        """Slots of pairs, int64 [len(keys)], which become the most recently used ones; -1 where there is none."""
        return np.array([-1 if slot is None else slot for slot in map(self._slots.get, keys)], np.int64)

    def read(self, slots: np.ndarray) -> list[np.ndarray]:
        """Copy the values of some slots; the values for a slot of -1 are arbitrary."""
        return [values[slots] for values in self._values]

    def write(self, keys: list[bytes], outputs: list[np.ndarray]) -> None:
        """Store the outputs [len(keys), width] of pairs; of more than the capacity, the last ones stay."""
        slots = self._slots
        for row, key in enumerate(keys):
            slot = slots.peek(key)
            if slot is None:
                needed = self._entry_bytes + len(key)
                if needed > slots.capacity:
                    continue
                while slots.used + needed > slots.capacity:
                    self._free.append(slots.pop_oldest())
                if self._free:
                    slot = self._free.pop()
                else:
                    slot, self._fresh = self._fresh, self._fresh + 1
                slots.put(key, slot)
            for values, output in zip(self._values, outputs):
                values[slot] = output[row]


def pair_keys(tokens: PairTokens, rows: np.ndarray) -> list[bytes]:
    """Key of each pair: token ids, position where the title begins, match features. Equal keys are equal inputs."""
    starts, ends = (tokens.values.itemsize * tokens.offsets[rows + after] for after in (0, 1))
    values, rest = tokens.values.tobytes(), _fixed_part(tokens, rows)
    return [values[start:end] + part for part, start, end in zip(rest, starts.tolist(), ends.tolist(), strict=True)]


def _fixed_part(tokens: PairTokens, rows: np.ndarray) -> list[bytes]:
    """What a key holds besides token ids, of the same length for all pairs."""
    columns = [tokens.query_tokens[rows, None]]
    if tokens.match is not None:
        columns.append(tokens.match[rows])
    data = np.concatenate([np.ascontiguousarray(column).view(np.uint8) for column in columns], axis=1)
    width, joined = data.shape[1], data.tobytes()
    return [joined[start : start + width] for start in range(0, len(joined), width)]

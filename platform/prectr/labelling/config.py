"""Settings of `train-teacher`, `select-pairs` and `label`.

Imports pydantic only, no torch and no Ray: the command line loads this module before it runs a job.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prectr.core.config import Execution, FrozenConfig
from prectr.core.mirror import LocalOrUri
from prectr.core.ray_session import WorkerConfig

Engine = Literal["auto", "vllm", "transformers", "http"]
Language = Literal["auto", "de", "en", "es", "fr", "ja", "zh"]


class TeacherConfig(WorkerConfig):
    """Settings of `train-teacher`, which fits a causal language model to judged training queries."""

    prompt: str = "relevance_v1"
    """Prompt template: a name in `prectr/labelling/prompts/`, or the path of a .yaml file."""
    language: Language = "auto"
    """Language of the prompt, which should be the catalogue's. `auto` recognises Chinese and Japanese titles by their
    script and uses English for all others."""
    base_model: str | None = None
    """Hugging Face checkpoint to start from: a directory or a name on the hub. null trains a small Qwen2 from scratch,
    whose shape `vocabulary`, `width`, `layers`, `heads` and `feed_forward` set."""
    vocabulary: int = Field(4096, ge=300)
    """Tokens in the vocabulary of a model trained from scratch, at most. Ignored with `base_model`."""
    width: int = Field(64, ge=8)
    """Hidden size of a model trained from scratch. Ignored with `base_model`."""
    layers: int = Field(2, ge=1)
    """Transformer layers of a model trained from scratch. Ignored with `base_model`."""
    heads: int = Field(2, ge=1)
    """Attention heads of each layer of a model trained from scratch; must divide `width`. Ignored with `base_model`."""
    feed_forward: int = Field(192, ge=8)
    """Inner width of the feed-forward blocks of a model trained from scratch. Ignored with `base_model`."""
    max_length: int = Field(192, ge=32)
    """Tokens of a whole prompt, at most. The end of the item's title is cut to fit."""
    warm_start_pairs: int = Field(8000, ge=0)
    """Pairs generated from the catalogue that are seen once, as epoch 0, before the judged pairs. They teach that equal
    words match (see `relevance/warm_start.py`). 0 leaves the warm start out."""
    negatives: float = Field(0.35, ge=0)
    """Random pairs of a judged query and an item of the catalogue for each judged pair. They count as judged
    irrelevant, in training and in validation."""
    epochs: int = Field(5, ge=1)
    """Passes over the judged training pairs, at most; see `patience`."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss before training stops. The best epoch is kept."""
    batch_size: int = Field(32, ge=1)
    """Prompts in one optimiser step, over all workers together."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW. The default suits the model trained from scratch; a `base_model` needs about 1e-5,
    or 1e-4 with LoRA."""
    weight_decay: float = Field(0.2, ge=0)
    """Weight decay of AdamW on matrices. The default suits the model trained from scratch; a `base_model` needs about
    0.01."""
    warm_up: float = Field(0.05, ge=0, lt=1)
    """Share of the training steps in which the learning rate rises from zero to its peak."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of the attention weights of a model trained from scratch. Ignored with `base_model`."""
    token_dropout: float = Field(0.12, ge=0, lt=1)
    """Share of a prompt's tokens that are blanked at random in training, except the start and end that all prompts
    share. Keeps the model from memorising a small set of queries."""
    lora_rank: int = Field(0, ge=0)
    """Rank of LoRA adapters (through `peft`), which are merged into the checkpoint at the end. 0 trains all weights."""
    lora_alpha: float = Field(16.0, gt=0)
    """Scale of the LoRA adapters: their output is multiplied by `lora_alpha / lora_rank`. Ignored if the rank is 0."""
    lora_targets: list[str] | None = None
    """Names, or last parts of names, of the linear layers that get LoRA adapters. null: all but the output layer."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches that each worker cuts its share of a batch into. More need less memory and give the same step."""
    checkpoint_activations: Execution[bool] = False
    """Recompute activations in the backward pass instead of storing them: slower, with far less memory for a large
    model."""
    workers: int = Field(1, ge=1)
    """Workers of Ray Train. Each computes its share of every batch and draws its own dropout."""
    max_seconds: float = Field(600.0, gt=0)
    """Time limit in seconds: training stops after the epoch that passes it and keeps the best epoch so far. A safety
    net only, because a limit that takes effect makes the result depend on the machine."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Number format of the forward pass. `auto`: bfloat16 where the processor has AMX, else float32. At the default
    width conversions cost more than AMX saves; use `auto` with a `base_model`."""
    seed: int = 17
    """Seed of the weights, the order of batches, dropout and the warm-start pairs."""


class SelectionConfig(FrozenConfig):
    """Settings of `select-pairs`, which chooses the pairs that the teacher grades."""

    budget: int = Field(9000, ge=0)
    """Distinct questions to ask in all, including the judged validation and held-back pairs. Pairs with the same texts
    after normalisation are one question."""
    unexposed_share: float = Field(0.4, ge=0, le=1)
    """Share of the questions about logged pairs that comes from candidates that were never shown. The judged questions
    do not count."""
    catalogue_share: float = Field(0.1, ge=0, le=1)
    """Share of the questions that pairs queries with items of the catalogue that their log does not hold: half with
    random items, half with items of the category that the query shows. The judged questions do not count."""
    seed: int = 17
    """Seed of the random order in which questions are chosen, and of the pairs from the catalogue."""


class ReplicaConfig(FrozenConfig):
    """Number of the teacher's replicas and the resources of each."""

    at_least: int = Field(1, ge=1)
    """Replicas that run from the start to the end of the run."""
    at_most: int = Field(1, ge=1)
    """Upper limit of replicas. Ray adds replicas while questions wait and removes idle ones."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of one replica (with tensor parallelism: of each of its workers). null: one if the running cluster has any,
    else none. Give a number if the autoscaler still has to start the machines with GPUs."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one copy of the teacher. vLLM only."""
    cpus: float = Field(1.0, gt=0)
    """CPUs of one replica. A replica that asks a server takes at most a quarter of one."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory in GiB that Ray reserves for one replica. null reserves none; a replica that asks a server never reserves
    any."""
    resources: dict[str, float] = {}
    """Custom Ray resources of one replica, e.g. {teacher: 1}, which place it on a group of machines."""
    restarts: int = Field(5, ge=0)
    """Restarts of a replica whose engine died before the run fails. Its open questions are asked again."""
    wait_seconds: float = Field(3600.0, gt=0)
    """Seconds without any answer after which the run fails. Leave time for the first machine of a group to start."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.at_most < self.at_least:
            raise ValueError(f"at_most ({self.at_most}) is below at_least ({self.at_least}); raise at_most")
        return self


class VllmConfig(FrozenConfig):
    """Settings of the vLLM engine."""

    through: Literal["actors", "ray.data.llm"] = "actors"
    """Way to run vLLM. `actors`: vLLM's `LLM` in Ray Data actors; faster, one replica on one machine. `ray.data.llm`:
    Ray's processor, whose placement groups spread one tensor-parallel replica over several machines."""

    cpu_cache_gib: Execution[int] = Field(1, ge=1)
    """GiB of the key-value cache of an engine that runs on a CPU."""
    gpu_memory_share: Execution[float] = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory that the engine may use for weights, activations and the key-value cache."""
    eager: bool = True
    """Run without CUDA graphs. A one-token answer gains little from them, and they take a minute to record."""
    trust_remote_code: bool = False
    """Run Python code from the checkpoint. Some architectures need it; use it for trusted checkpoints only."""
    options: dict[str, Any] = {}
    """Further engine arguments by vLLM's own names. They outrank the ones set here."""


class HttpConfig(FrozenConfig):
    """Settings of a teacher behind an OpenAI-compatible URL."""

    model: str | None = None
    """Name of the model on the server. null: the only model that the server lists."""
    revision: str = ""
    """Free text that tells apart two models served under one name. Part of a label's key in the ledger."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the API key, if the server needs one. The key is read from nowhere else."""
    dialect: Literal["auto", "vllm", "openai"] = "auto"
    """Protocol of the server. `vllm` restricts the answer to the labels and checks them with the server's tokenizer;
    `openai` reads the likeliest tokens; `auto` takes `vllm` if the server's list of models names vLLM as the owner."""
    at_once: Execution[int] = Field(64, ge=1)
    """Requests that one replica has open at the same time."""
    requests_per_second: Execution[float | None] = Field(None, gt=0)
    """Limit of requests per second over all replicas together. null: no limit."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Seconds that one request may take before it counts as failed."""
    retries: int = Field(5, ge=0)
    """Further tries after status 408, 429 or 5xx, stated in the reply's status or in its content, after a reply with
    nothing in it, a time-out or a broken connection. Other failures are final."""
    first_wait_seconds: float = Field(0.5, gt=0)
    """Seconds to wait before the first retry. Doubled after each try, with jitter, up to a minute; a wait
    that the server states (`Retry-After`, or `retry_after` in the body) outranks it."""


class LabelConfig(FrozenConfig):
    """Settings of `label`, which asks the teacher."""

    prompt: str = "relevance_v1"
    """Prompt template: a name in `prectr/labelling/prompts/`, or the path of a .yaml file. Use the one that the teacher
    was trained with."""
    language: Language = "auto"
    """Language of the prompt, which should be the catalogue's. `auto` recognises Chinese and Japanese titles by their
    script and uses English for all others."""
    engine: Engine = "auto"
    """Engine that runs the teacher. `auto`: http for a URL, else vLLM where it is installed, else transformers."""
    replicas: Execution[ReplicaConfig] = ReplicaConfig()
    """Number of the teacher's replicas and the resources of each."""
    vllm: VllmConfig = VllmConfig()
    """Settings of the vLLM engine; used if `engine` is or becomes `vllm`."""
    http: HttpConfig = HttpConfig()
    """Settings of a teacher behind a URL; used if `engine` is or becomes `http`."""
    ledger: LocalOrUri | None = None
    """Directory or URI of the label ledger, which keeps every answer and survives failed runs. null: `label-ledger`
    beside the artifact."""
    shard_rows: int = Field(5000, ge=1)
    """Answers after which a run commits a shard to the ledger. A killed run loses at most the shard in progress."""
    shard_seconds: float = Field(30.0, ge=0)
    """Seconds after which a run commits a shard even if it holds fewer than `shard_rows` answers."""
    max_length: int = Field(192, ge=32)
    """Tokens of a whole prompt, at most. The end of the item's title is cut to fit."""
    batch_size: int = Field(256, ge=1)
    """Questions that a replica gets at once. vLLM in actors gets up to four times as many."""
    data_type: Literal["bfloat16", "float16", "float32", "auto"] = "bfloat16"
    """Number format of the teacher's weights and activations; `auto`: the checkpoint's own. Part of a label's key in
    the ledger."""
    max_error_share: float = Field(0.01, ge=0, le=1)
    """Largest share of failed questions. Above it the stage fails; below it the failures are listed in
    `errors.parquet`."""
    confirm_above: int = Field(200_000, ge=0)
    """Questions above which a run asks for confirmation, or needs `--yes`."""
    repeat_sample: int = Field(200, ge=0)
    """Questions that are asked twice, to measure how often the teacher's label flips. 0 measures nothing."""
    calibrate: bool = True
    """Fit a calibration of the teacher's probabilities on judged validation pairs. `false` keeps them as they are."""
    seed: int = 17
    """Seed of the engine and of requests to a server. Answers are not sampled, so it rarely matters."""

"""Settings of the teacher stages: `train-teacher`, `select-pairs`, `label`. Pydantic only: the CLI imports this."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prectr.core.config import Execution, FrozenConfig
from prectr.core.mirror import LocalOrUri
from prectr.core.ray_session import WorkerConfig

Engine = Literal["auto", "vllm", "transformers", "http"]
Language = Literal["auto", "de", "en", "es", "fr", "ja", "zh"]


class TeacherConfig(WorkerConfig):
    """How `train-teacher` fits a causal language model to the judged training queries."""

    prompt: str = "relevance_v1"
    """Name of a template in `prectr/labelling/prompts/`, or a path to a template file."""
    language: Language = "auto"
    """Of the catalogue, and so of the prompt; `auto` tells Chinese and Japanese by their script, else English."""
    base_model: str | None = None
    """A Hugging Face checkpoint to start from; None trains the small model below from scratch."""
    vocabulary: int = Field(4096, ge=300)
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    feed_forward: int = Field(192, ge=8)
    max_length: int = Field(192, ge=32)
    """Tokens of a whole prompt; a longer title is cut."""
    warm_start_pairs: int = Field(8000, ge=0)
    """Pairs made from the catalogue alone that are seen once before the judged ones (see `relevance/warm_start.py`)."""
    epochs: int = Field(5, ge=1)
    patience: int = Field(3, ge=1)
    """Epochs without a better validation loss before training stops."""
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    """For the small model; a `base_model` wants about 1e-5, or 1e-4 with LoRA."""
    weight_decay: float = Field(0.2, ge=0)
    """For the small model; a `base_model` wants about 0.01."""
    warm_up: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the attention weights."""
    token_dropout: float = Field(0.12, ge=0, lt=1)
    """Share of the prompt's own tokens that are blanked in training, so that few queries are not learnt by heart."""
    lora_rank: int = Field(0, ge=0)
    """Rank of LoRA adapters (through `peft`), merged into the checkpoint at the end; 0 trains all weights."""
    lora_alpha: float = Field(16.0, gt=0)
    lora_targets: list[str] | None = None
    """Names of the linear layers to adapt; null: all but the output."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches a step: `batch_size` is cut into so many, to fit a large model into memory."""
    checkpoint_activations: Execution[bool] = False
    """Recompute activations in the backward pass: slower, and a large model needs far less memory."""
    workers: int = Field(1, ge=1)
    """Workers of Ray Train; each takes its share of every batch, and draws its own dropout."""
    max_seconds: float = Field(600.0, gt=0)
    """Training stops after the epoch that passes this limit; the best epoch so far is kept. A safety net only: a limit
    that bites makes the result depend on the machine."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """`auto`: bfloat16 where the processor has AMX, else float32. At the default width the casts cost more than AMX
    saves; use `auto` for a `base_model`."""
    seed: int = 17


class SelectionConfig(FrozenConfig):
    """Which pairs `select-pairs` chooses for the teacher."""

    budget: int = Field(9000, ge=0)
    """Distinct questions to ask in all, the judged validation and held-back pairs included. Pairs whose texts are the
    same after normalisation are one question."""
    unexposed_share: float = Field(0.4, ge=0, le=1)
    """Share of the questions beyond the judged ones that is taken from unexposed candidates."""
    seed: int = 17


class ReplicaConfig(FrozenConfig):
    """How many copies of the teacher run, and on what."""

    at_least: int = Field(1, ge=1)
    at_most: int = Field(1, ge=1)
    """Replicas are added while work waits, and removed when it does not."""
    gpus: float | None = Field(None, ge=0)
    """GPUs of one replica (of each of its workers, with tensor parallelism); null: one where the cluster has any now,
    else none. Name a number for a group of machines that the autoscaler has yet to start."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one copy of the teacher (vLLM only)."""
    cpus: float = Field(1.0, gt=0)
    memory_gib: float | None = Field(None, gt=0)
    """Memory that Ray sets aside with the CPUs; null: not counted, and a replica that asks a server never is."""
    resources: dict[str, float] = {}
    """Custom resources of one replica, e.g. {teacher: 1}, to place it on a group of machines."""
    restarts: int = Field(5, ge=0)
    """How often a replica whose engine dies is started again before the run fails; what it was asked is asked again."""
    wait_seconds: float = Field(3600.0, gt=0)
    """How long a run may stand without an answer, e.g. while the first machine of a group starts, before it fails."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.at_most < self.at_least:
            raise ValueError(f"at_most ({self.at_most}) is below at_least ({self.at_least})")
        return self


class VllmConfig(FrozenConfig):
    """What the vLLM engine is told."""

    through: Literal["actors", "ray.data.llm"] = "actors"
    """`actors`: vLLM's `LLM` in Ray Data actors, the faster way; one machine holds a replica. `ray.data.llm`: its
    processor, whose placement groups spread one tensor-parallel replica over machines."""

    cpu_cache_gib: Execution[int] = Field(1, ge=1)
    """Key-value cache of an engine on a CPU."""
    gpu_memory_share: Execution[float] = Field(0.9, gt=0, le=1)
    eager: bool = True
    """No CUDA graphs: a one-token answer gains little from them and they take a minute to record."""
    trust_remote_code: bool = False
    options: dict[str, Any] = {}
    """Further engine arguments of vLLM, by its own names."""


class HttpConfig(FrozenConfig):
    """How a teacher behind an OpenAI-compatible URL is asked."""

    model: str | None = None
    """The model's name there; null: the only one that the server lists."""
    revision: str = ""
    """Tells apart two models that were served under one name: part of a label's key."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, if there is one; a key is never read from anywhere else."""
    dialect: Literal["auto", "vllm", "openai"] = "auto"
    """`vllm` constrains the answer to the labels and checks them against the server's tokenizer; `auto` asks the
    server's list of models who it is."""
    at_once: Execution[int] = Field(64, ge=1)
    """Requests in flight of one replica."""
    requests_per_second: Execution[float | None] = Field(None, gt=0)
    """Limit over all replicas together."""
    timeout_seconds: float = Field(60.0, gt=0)
    retries: int = Field(5, ge=0)
    """After 408, 429, 5xx, a time-out or a broken connection; other answers are final."""
    first_wait_seconds: float = Field(0.5, gt=0)
    """Doubled after each try, with jitter, up to a minute; a server's Retry-After outranks it."""


class LabelConfig(FrozenConfig):
    """How `label` asks the teacher."""

    prompt: str = "relevance_v1"
    language: Language = "auto"
    """Of the catalogue; see `teacher.language`."""
    engine: Engine = "auto"
    """`auto`: http for a URL, else vLLM where it is installed, else transformers."""
    replicas: Execution[ReplicaConfig] = ReplicaConfig()
    vllm: VllmConfig = VllmConfig()
    http: HttpConfig = HttpConfig()
    ledger: LocalOrUri | None = None
    """Directory of the label ledger; None: `label-ledger` beside the artifact. It survives failed runs."""
    shard_rows: int = Field(5000, ge=1)
    """Labels are committed to the ledger in shards of about this many,"""
    shard_seconds: float = Field(30.0, ge=0)
    """and at the latest after so long."""
    max_length: int = Field(192, ge=32)
    """Tokens of a whole prompt; a longer title is cut."""
    batch_size: int = Field(256, ge=1)
    data_type: Literal["bfloat16", "float16", "float32", "auto"] = "bfloat16"
    max_error_share: float = Field(0.01, ge=0, le=1)
    """More failed questions than this share fail the stage; fewer go to `errors.parquet`."""
    confirm_above: int = Field(200_000, ge=0)
    """A run that has to ask more questions than this wants `--yes`."""
    repeat_sample: int = Field(200, ge=0)
    """Questions that are asked twice, to state how often the teacher's own label flips."""
    calibrate: bool = True
    seed: int = 17

"""The teacher through plain transformers in Ray Data actors: the fallback where vLLM cannot run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from prectr.labelling.engines import Question

if TYPE_CHECKING:
    import ray.data


def answer_with_transformers(prompts: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer in one actor that holds the model; a batch that fails is marked, not lost."""
    import ray.data

    return prompts.map_batches(
        TransformersTeacher,
        fn_constructor_kwargs={"question": question},
        batch_size=question.batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )


class TransformersTeacher:
    """Next-token distribution of a batch of prompts, collapsed to the labels."""

    def __init__(self, question: Question) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        data_type: Any = question.data_type if question.data_type == "auto" else getattr(torch, question.data_type)
        self._model = AutoModelForCausalLM.from_pretrained(question.teacher, dtype=data_type).to(self._device).eval()
        self._labels = list(question.label_tokens)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer one batch of `key`, `prompt_tokens`."""
        prompts = [np.asarray(prompt) for prompt in batch["prompt_tokens"]]
        rows = len(prompts)
        try:
            mass, error = self.label_mass(prompts), [""] * rows
        except RuntimeError as failure:
            mass, error = np.full((rows, len(self._labels)), np.nan), [str(failure)[:500]] * rows
        return {"key": batch["key"], **answer_columns(mass), "error": np.array(error, dtype=object)}

    def label_mass(self, prompts: list[np.ndarray]) -> np.ndarray:
        """Probability of each label token as the next one: [n, labels], float64."""
        import torch

        lengths = np.array([len(prompt) for prompt in prompts])
        ids = np.zeros((len(prompts), lengths.max()), np.int64)
        real = np.arange(lengths.max()) < lengths[:, None]
        ids[real] = np.concatenate(prompts)
        with torch.inference_mode():
            hidden = self._model.base_model(
                input_ids=torch.from_numpy(ids).to(self._device),
                attention_mask=torch.from_numpy(real.astype(np.int64)).to(self._device),
            ).last_hidden_state
            last = hidden[torch.arange(len(prompts)), torch.from_numpy(lengths - 1)]
            logits = self._model.get_output_embeddings()(last).float()
            return torch.softmax(logits, dim=1)[:, self._labels].double().cpu().numpy()


def answer_columns(mass: np.ndarray) -> dict[str, np.ndarray]:
    """Label masses [n, 4] as columns: levels normalised over the labels, and what fell outside them."""
    total = mass.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = np.where(total[:, None] > 0, mass / total[:, None], 1.0 / mass.shape[1])
    columns = {f"level_{level}": levels[:, level].astype(np.float32) for level in range(mass.shape[1])}
    return columns | {"outside_mass": np.clip(1.0 - total, 0.0, 1.0).astype(np.float32)}

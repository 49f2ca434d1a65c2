"""Engine that runs a teacher with plain transformers in Ray Data actors, for machines without vLLM.

It pads prompts of a batch to one length and uses no prefix cache, so it is slower than vLLM.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from prectr.labelling.engines.contract import Question, answer_columns, length_errors, map_replicas, replica_gpus
from prectr.labelling.engines.tokens import with_prompt_tokens
from prectr.labelling.own_teacher.logits import logits_at

if TYPE_CHECKING:
    import ray.data


def answer_with_transformers(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer in actors that each hold the model. A failed row gets an error text."""
    return map_replicas(
        with_prompt_tokens(questions, question),
        TransformersTeacher,
        question,
        batch_size=question.config.batch_size,
        batch_format="numpy",
        fn_constructor_kwargs={"question": question},
        num_gpus=replica_gpus(question.config),
    )


class TransformersTeacher:
    """Actor that computes the label probabilities of batches of prompts."""

    def __init__(self, question: Question) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        name = question.config.data_type
        data_type: Any = name if name == "auto" else getattr(torch, name)
        self._model = AutoModelForCausalLM.from_pretrained(question.teacher, dtype=data_type).to(self._device).eval()
        self._labels = list(question.label_tokens)
        self._max_length = question.config.max_length

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer one batch with the columns key and prompt_tokens."""
        prompts = [np.asarray(prompt) for prompt in batch["prompt_tokens"]]
        mass = np.full((len(prompts), len(self._labels)), np.nan)
        errors = length_errors(prompts, self._max_length)
        valid_rows = [row for row, error in enumerate(errors) if not error]
        try:
            if valid_rows:
                mass[valid_rows] = self.label_mass([prompts[row] for row in valid_rows])
        except RuntimeError as failure:
            for row in valid_rows:
                errors[row] = str(failure)[:500]
        return {"key": batch["key"], **answer_columns(mass), "error": np.array(errors, dtype=object)}

    def label_mass(self, prompts: list[np.ndarray]) -> np.ndarray:
        """Probability of each label token as the next token: float64 [n, labels]."""
        import torch

        lengths = np.array([len(prompt) for prompt in prompts])
        ids = np.zeros((len(prompts), lengths.max()), np.int64)
        real = np.arange(lengths.max()) < lengths[:, None]
        ids[real] = np.concatenate(prompts)
        with torch.inference_mode():
            logits = logits_at(
                self._model,
                torch.from_numpy(ids).to(self._device),
                torch.from_numpy(lengths - 1).to(self._device),
                attention_mask=torch.from_numpy(real.astype(np.int64)).to(self._device),
            )
            return torch.softmax(logits.float(), dim=1)[:, self._labels].double().cpu().numpy()

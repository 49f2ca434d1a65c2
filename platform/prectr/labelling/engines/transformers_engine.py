"""The teacher through plain transformers in Ray Data actors: the fallback where vLLM cannot run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from prectr.labelling.engines.contract import Question, answer_columns, length_errors, map_replicas, replica_gpus
from prectr.labelling.engines.tokens import with_prompt_tokens
from prectr.labelling.own_teacher.logits import logits_at

if TYPE_CHECKING:
    import ray.data


def answer_with_transformers(questions: "ray.data.Dataset", question: Question) -> "ray.data.Dataset":
    """Answer in actors that hold the model each; a row that fails is marked, not lost."""
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
    """Next-token distribution of a batch of prompts, collapsed to the labels."""

    def __init__(self, question: Question) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        name = question.config.data_type
        data_type: Any = name if name == "auto" else getattr(torch, name)
        self._model = AutoModelForCausalLM.from_pretrained(question.teacher, dtype=data_type).to(self._device).eval()
        self._labels = list(question.label_tokens)
        self._longest = question.config.max_length

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer one batch of `key`, `prompt_tokens`."""
        prompts = [np.asarray(prompt) for prompt in batch["prompt_tokens"]]
        mass = np.full((len(prompts), len(self._labels)), np.nan)
        errors = length_errors(prompts, self._longest)
        good = [row for row, error in enumerate(errors) if not error]
        try:
            if good:
                mass[good] = self.label_mass([prompts[row] for row in good])
        except RuntimeError as failure:
            for row in good:
                errors[row] = str(failure)[:500]
        return {"key": batch["key"], **answer_columns(mass), "error": np.array(errors, dtype=object)}

    def label_mass(self, prompts: list[np.ndarray]) -> np.ndarray:
        """Probability of each label token as the next one: [n, labels], float64."""
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

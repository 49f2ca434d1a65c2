"""vLLM's own OpenAI-compatible server as the teacher: the same answers as the model gives in this process."""

import asyncio
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import httpx
import numpy as np
import polars as pl
import pytest
import torch

from prectr.labelling.config import LabelConfig, TeacherConfig
from prectr.labelling.engines.contract import Question
from prectr.labelling.engines.http_engine import HttpAsker, probe
from prectr.labelling.engines.transformers_engine import TransformersTeacher
from prectr.labelling.own_teacher.model import new_model, train_bpe
from prectr.labelling.prompt import label_token_ids, load_prompt, tokenise_prompts
from tests.processes import free_port

CONTEXT = 256
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.content | trim }}\n{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}answer{% else %}think{% endif %}\n"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A tiny teacher with a chat template, and the base URL of the vLLM server that serves it."""
    directory = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    tokenizer = train_bpe([load_prompt("relevance_v1").text], 400, CONTEXT)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(directory)
    model = new_model(TeacherConfig(width=64, feed_forward=64), len(tokenizer), tokenizer.eos_token_id)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)  # fresh weights would answer all pairs almost alike
    model.save_pretrained(directory)
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory)]
    flags = {"--served-model-name": "tiny", "--max-model-len": CONTEXT, "--dtype": "bfloat16", "--host": "127.0.0.1"}
    command += [str(part) for flag in flags.items() for part in flag] + ["--port", str(port), "--enforce-eager"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        until = time.monotonic() + 240
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail("vLLM's server did not start:\n" + (directory / "server.log").read_text()[-3000:])
            time.sleep(0.5)
        yield directory, tokenizer, url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url):
    try:
        return httpx.get(f"{url}/models", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_served_model_answers_as_the_model_itself_and_refuses_one_prompt_alone(served):
    directory, tokenizer, url = served
    template, config = load_prompt("relevance_v1"), LabelConfig(max_length=CONTEXT - 1, data_type="bfloat16")
    found = probe(Question(url, template, (), config))
    tokens = tuple(label_token_ids(tokenizer, template))
    assert (found.http.model, found.http.dialect, found.server.label_tokens) == ("tiny", "vllm", tokens)
    assert found.server.chat and found.fingerprint == f"tiny root={directory}"
    pairs = pl.DataFrame(
        {
            "query": [f"nokia {row}" for row in range(40)],
            "title": [f"Nokia {row * 7 % 40} battery" for row in range(40)],
        }
    )
    poison = pl.DataFrame({"query": ["long " * 2000], "title": ["a title"]})
    prompts = template.render(pl.concat([pairs, poison]))
    mass, errors = asyncio.run(HttpAsker(found.server, found.http, None).label_mass(prompts))
    assert errors[:-1] == [""] * 40
    assert errors[-1].startswith("HTTP 400: This model's maximum context length is 256 tokens")

    teacher = TransformersTeacher(Question(str(directory), template, tokens, config))
    prompt_tokens = tokenise_prompts(tokenizer, template, pairs, config.max_length)
    expected = teacher.label_mass([np.asarray(prompt) for prompt in prompt_tokens])
    assert np.allclose(mass[:-1], expected, rtol=0.05, atol=1e-4)
    levels, expected = (found / found.sum(1, keepdims=True) for found in (mass[:-1], expected))
    assert np.allclose(levels, expected, atol=2e-2)
    assert np.ptp(expected, axis=0).max() > 2e-2, "the pairs' answers must differ for this to show anything"

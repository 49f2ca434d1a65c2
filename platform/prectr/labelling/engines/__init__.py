"""Engines ask a teacher: vLLM, `ray.data.llm`, transformers, or an OpenAI-compatible server."""

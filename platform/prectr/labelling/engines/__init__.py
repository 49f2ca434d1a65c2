"""Engines run a teacher: vLLM, `ray.data.llm`, transformers, or an OpenAI-compatible server.

Reading order: `contract` (input and output of every engine), `choose` (selects one), then one file per engine;
`http_protocol`, `http_probe` and `http_engine` belong together. `interactive` answers a few pairs at a time without Ray
Data. Engines read no tables and write no ledger.
"""

"""Online scoring without HTTP: the parts of a replica of `serve` and of a server without Ray.

Reading order: `config` (settings, assignment of users to models); `states` and `publish` (published features of users,
queries, items and pairs); `user_delta`, `delta_stores` and `events` (updates of users since the publication);
`service` (the path of a request), `batcher` (scoring requests together), `served_models` (loading and checking
models); `exposures` (the log), `instruments` (metrics); `query_preference` and `search` (for the playground); `client`.

The room must not know Ray or HTTP servers: `serve_apps` adds both.
"""

"""Online scoring without HTTP: the parts of a replica of `serve` and of a server without Ray.

Reading order: `config` (settings, assignment of users to models); `states` and `publish` (published features of users,
queries, items and pairs); `user_delta` and `delta_stores` (updates of users since the publication), `impression_tokens`
and `tokens` (which events and requests are believed); `service` (the path of a request), `event_recorder` (the path of
an event), `batcher` (scoring requests together, events in between), `served_models` (loading and checking models),
`models_history`, `golden_requests`, `garbage`; `exposures` and `request_log` (the logs), `instruments` (metrics);
`query_preference` and `search` (for the playground); `client`.

The room must not know Ray or HTTP servers: `serve_apps` adds both.
"""

"""Online scoring without HTTP: what a replica of `serve` is made of, and a server without Ray is, too.

Reading order: `config`; `states` and `publish` (what is known of users, queries, items and pairs); `user_delta`,
`user_deltas` and `events` (what became known since); `service` (one request's way), `batcher` (scoring requests
together), `assignment` (who sees which model), `served_models` and `golden` (loading one, or refusing it); `exposures`
(the log), `instruments` and `drift` (what is counted).

The room must not know Ray or HTTP: `serve_apps` puts both around it.
"""

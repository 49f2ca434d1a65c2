"""Online scoring without HTTP: what a replica of `serve` is made of, and a server without Ray is, too.

Reading order: `config`; `store`, `lmdb_store`, `redis_store` (what is known of users, queries, items and pairs) and
`publish`; `user_delta` and `events` (what became known since); `service` (models, who sees which, one request's way),
`batcher` (requests that are scored together), `golden` (refusing a bundle that does not score as it did), `exposures`
(the log), `instruments` and `drift` (what is counted).

The room must not know Ray or HTTP: `serve_apps` puts both around it.
"""

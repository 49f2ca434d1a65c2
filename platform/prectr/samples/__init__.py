"""Training and evaluation rows, point in time: what was known before a row's timestamp, and nothing later."""

"""Masking of credentials in texts: passwords in URLs, and tokens, keys and signatures in their queries."""

import logging
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_PASSWORD = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*:/{1,3}[^\s/@:'\"]*):[^\s/'\"]+@")
_PARAMETER = re.compile(
    r"([?&;](?:[a-z0-9_.-]*(?:password|passwd|secret|token|signature|credential|api[_-]?key|access[_-]?key(?:_?id)?)"
    r"|key|sig|sas)=)[^&\s;#'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Replace the credentials in a text by `***`.

    >>> masked("redis://reader:a-password@host:6379/0 does not answer")
    'redis://reader:***@host:6379/0 does not answer'
    >>> masked("https://bucket.example/file?X-Amz-Signature=0a1b2c&part=2")
    'https://bucket.example/file?X-Amz-Signature=***&part=2'
    """
    if ":/" in text:  # a path object leaves one slash of a URL
        text = _PASSWORD.sub(rf"\1:{MASK}@", text)
    return _PARAMETER.sub(rf"\1{MASK}", text) if "=" in text else text


def masked_content(content: Any) -> Any:
    """Mask all texts in nested mappings and lists of JSON types."""
    if isinstance(content, str):
        return masked(content)
    if isinstance(content, Mapping):
        return {key: masked_content(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [masked_content(value) for value in content]
    return content


def mask_logs() -> None:
    """Mask the messages of all log records of this process, whatever their logger and handler."""
    factory = logging.getLogRecordFactory()
    if getattr(factory, "masks", False):
        return

    def masking(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = factory(*arguments, **options)
        try:
            message = record.getMessage()
        except Exception:  # wrong arguments of a log call: the handler reports them
            return record
        if (safe := masked(message)) != message:
            record.msg, record.args = safe, None
        return record

    masking.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masking)

"""Reports about artifacts: HTML pages, pictures, Markdown and terminal tables.

This room reads and formats the figures of artifacts. It computes no metrics and writes no artifact.
"""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""Jinja templates and the style sheet of all pages."""

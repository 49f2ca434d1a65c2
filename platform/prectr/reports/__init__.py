"""Pages, pictures and terminal tables about artifacts. This room reads artifacts and computes nothing of its own."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""Jinja templates and the style sheet of all pages."""

"""The playground at `/`: one page to try a ranker by hand, and what the page asks the server for."""

from fastapi import FastAPI

from prectr.online.service import ScoringService


def add_playground(app: FastAPI, service: ScoringService) -> None:
    """Add the page and its routes."""

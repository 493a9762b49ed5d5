"""Answers inside a database: predictions in one transaction, or the model itself as SQL."""

from millstream.deploy.database.scorer import DatabaseReport, DatabaseScorer

__all__ = ["DatabaseReport", "DatabaseScorer"]

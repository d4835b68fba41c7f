"""Numbered forward migrations of the SQLite database: `NNNN_what.sql`, each run once, in order, in one transaction."""

"""Carrying a deployment's records from one store to another (docs/moving.md)."""

"""Concepts, prompts and catalogs."""

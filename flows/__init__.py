"""Pipelines for people and schedules: one flow a file, and the command line."""

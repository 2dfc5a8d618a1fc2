"""The tasks of the flows, and below them the plain Python that does the work."""

"""Pages about edits: values in, one self-contained HTML file out. No store, no model."""

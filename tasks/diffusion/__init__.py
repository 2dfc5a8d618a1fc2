"""The diffusion models: what is loaded, observed and patched."""

"""How the bundled model was made: data, autoencoder, denoiser, judge."""

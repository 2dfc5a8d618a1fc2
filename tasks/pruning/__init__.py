"""The paper's algebra: energies give norms, norms and weights a ranking, a ranking the masks of any sparsity."""

"""Pictures and filters that perturbations and baselines are made of."""

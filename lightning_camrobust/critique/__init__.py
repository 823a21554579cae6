"""The critique of perturbation baselines: removal curves, what they measure, and whether a ranking depends on them."""

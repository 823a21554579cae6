"""What the probe costs, measured as ratios in one run: ``make bench``."""

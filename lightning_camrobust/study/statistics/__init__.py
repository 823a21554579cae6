"""Whether differences are larger than chance: bootstrap over images, tests on ranks, mixed models."""

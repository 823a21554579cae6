"""One file a similarity: two rows of segment scores in, one number an image out."""

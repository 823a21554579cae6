"""One file a segmenter: clean images in, labels out."""

"""One file a way to fill in removed pixels: images in pixel space in, images to fill from out."""

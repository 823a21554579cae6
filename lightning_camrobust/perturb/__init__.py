"""One file a family of disturbances: images in pixel space in, disturbed images out."""

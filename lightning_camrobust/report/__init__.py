"""One file a destination: a finished report in, pictures or files out."""

"""One file a CAM method: a pass of the network in, maps out."""

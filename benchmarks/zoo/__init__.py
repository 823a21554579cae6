"""Does the callback work on networks that nobody here chose? A sweep over torchvision and timm."""

"""Certificates: how far an image may be disturbed while the top of its class activation map provably stays."""

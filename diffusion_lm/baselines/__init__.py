"""Autoregressive methods that the paper compares with, small and from scratch: the comparison is of methods, not of sizes."""

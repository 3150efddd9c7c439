"""Measures writes between two processes of this machine, beside the limits of the same run."""

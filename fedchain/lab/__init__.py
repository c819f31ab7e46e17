"""Experiments: a whole federation in one process, with its real roles and real cryptography, and what it compares with.

No part of a real federation: who runs an experiment holds every member's data and keys.
"""

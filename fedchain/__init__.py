"""Federated learning with no server to trust: encrypted updates on IPFS, rounds on an EVM chain, audits for anyone."""

__version__ = "0.1.0"

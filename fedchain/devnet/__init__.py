"""A local federation's ground: an EVM chain (anvil) and one IPFS node a peer, started, watched and stopped together."""

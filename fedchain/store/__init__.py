"""The store: IPFS through a Kubo RPC (`ipfs`), and an embedded node to try things out with (`node`)."""

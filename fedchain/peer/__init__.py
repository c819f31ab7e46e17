"""A peer node: three roles (trainer, shareholder, aggregator) that read the chain, keep promises, and hold no phase."""

"""The chain: reads a federation, signs a member's statements, founds and verifies contracts. Reading needs no key."""

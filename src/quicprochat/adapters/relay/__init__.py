"""A relay for iroh: carries the encrypted datagrams of nodes that cannot reach each other directly; and its probe."""

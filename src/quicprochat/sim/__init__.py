"""A world in one process: the real node and its real frames, over a virtual clock, links and faults from one seed."""

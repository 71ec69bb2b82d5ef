"""The protocol itself: pure functions and values, no I/O, no clock, no entropy of its own.

Time and randomness come in as arguments, so the real node, the simulator and the fuzzers run the same code.
"""

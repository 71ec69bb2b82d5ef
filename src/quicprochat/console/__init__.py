"""What every program of ours does at a terminal and at its home's socket: exit codes, safe text, frames."""

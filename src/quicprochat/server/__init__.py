"""The home server: a queue for people whose devices sleep and roam. It sees keys and sealed bytes, nothing else."""

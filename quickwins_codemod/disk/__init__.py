"""The edge to the disk: single files, the journal of a run, the lock, and what git knows."""

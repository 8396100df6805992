"""A board driven from a workstation over the system's own ssh and rsync: send, run, follow, bring back."""

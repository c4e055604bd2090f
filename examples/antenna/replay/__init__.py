"""The incident of February 2026, replayed against a server that is frozen, slow and killed."""

"""Who may do what, and how much: principals, policy, quotas, capabilities (pure decisions)."""

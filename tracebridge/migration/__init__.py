"""The way from tier to tier: what stands in it, the switch in the configuration, its history and its way back."""

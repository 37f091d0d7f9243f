"""GTR: agents that think at every step; environments, correctors, PPO with guided thoughts."""

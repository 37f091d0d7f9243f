"""What every room may use: errors, paths, the hub, statistics, processes."""

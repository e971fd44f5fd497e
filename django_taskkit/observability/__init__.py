"""What a running system shows: logs, metrics, health, and what its queues hold."""

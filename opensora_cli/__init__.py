"""opensora_cli."""

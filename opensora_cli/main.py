"""The `osora` program."""

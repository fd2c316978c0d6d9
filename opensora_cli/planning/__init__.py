"""What a recipe will cost, worked out without a GPU and without allocating weights."""

"""mmdit."""

"""One module a family: `checks(case)` yields (name, got, want) for everything the case records."""

"""The exceptions a user can cause. The program catches `OsoraError` and nothing wider."""


class OsoraError(Exception):
    """Something a user can mend. The message says where, what, what is allowed and how to fix it."""

    exit_code = 1


class UsageError(OsoraError):
    """The command line itself is wrong, or a package that the command needs is not installed."""

    exit_code = 2

"""The one kind of error a user can cause and mend."""


class UserError(Exception):
    """One line: what is wrong, where, and how to mend it. The command line prints it and exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

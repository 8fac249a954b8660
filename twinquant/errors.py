"""The one kind of error that a user can cause and mend."""


class UserError(ValueError):
    """Bad input: one sentence naming the file, flag or tensor, what was found and what was expected.

    The scripts print the sentence without a traceback and leave with exit code 2; any other exception is a defect of
    ours and keeps its traceback.
    """

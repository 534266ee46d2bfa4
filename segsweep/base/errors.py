"""The one exception for everything that a user can mend."""


class UserError(Exception):
    """Something is wrong with what was asked for, not with the program.

    The message names the key or file, its value, the choices and the cure. The command line
    prints it without a traceback and exits with status 2.
    """

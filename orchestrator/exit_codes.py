"""With what commands end; docs/troubleshooting.md says what to do then. Of a signal it is 128 and its number."""

DONE = 0
UNEXPECTED = 1  # what nobody has thought of
LOST = 1  # nobody can say any more what became of a job, or it never came to run
REFUSED = 2  # bad input, as in click itself
NOT_WELL = 3  # the command came to its end, but stages failed, data cannot be trained on, something was left, ...
UNTRACKED = 4  # all is trained, but MLflow has not got all of it
INTERRUPTED = 130  # as after Ctrl-C

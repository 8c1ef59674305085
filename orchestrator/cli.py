"""The command line: tapath COMMAND. Each command is in `commands`."""

from __future__ import annotations

import errno
import platform
import traceback
from importlib.util import find_spec
from typing import Any

import click

from orchestrator.chatter import Unexpected
from orchestrator.commands import asking, housekeeping, measuring, running, starting, student
from orchestrator.document import printable
from orchestrator.exit_codes import INTERRUPTED, REFUSED, UNEXPECTED
from orchestrator.masking import public
from trainers.call import Invalid

NEEDED = ("fcntl", "resource")  # of Python's own modules those that Windows lacks


class Group(click.Group):
    """Turns whatever goes wrong into one message and an exit code; a traceback is shown by --debug alone."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Invalid as error:
            where = ".".join(str(part) for part in error.where)
            _say(ctx, error, f"error: {f'{where}: ' if where else ''}{error}")
            ctx.exit(REFUSED)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click knows them
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # as only somebody's own word can be
                _say(ctx, error, f"error: {public(str(error.filename))}: no file or folder can have so long a name")
                ctx.exit(REFUSED)
            _say(ctx, error, unexpected(error))
            ctx.exit(UNEXPECTED)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        _takes_debug(cmd)
        super().add_command(cmd, name)


def unexpected(error: Exception) -> str:
    """What is said of an error that nobody has thought of: ours, or of a library or a machine."""
    first = error.__cause__ if isinstance(error, Unexpected) else error
    if isinstance(first, OSError) and first.strerror:
        said = f"{first.strerror}{f': {first.filename}' if first.filename else ''}"
    else:
        said = " ".join(str(first).split()) or "it says no more"
    if isinstance(error, Unexpected):
        hint = f"{error.log} has where. What is trained is kept: the same command goes on"
    else:
        hint = "with --debug the same command shows where"
    return f"error: {type(first).__name__}: {public(said)}\nThis was not expected; {hint}."


def _say(ctx: click.Context, error: Exception, text: str) -> None:
    if ctx.params.get("debug"):
        traceback.print_exception(error)
    click.echo("\n".join(map(printable, text.split("\n"))), err=True)  # it may have names out of files in it


def _takes_debug(command: click.Command) -> None:
    """Let --debug be written behind the command's name, too."""

    def note(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().params["debug"] = True

    command.params.append(
        click.Option(["--debug"], is_flag=True, expose_value=False, callback=note, help="Show where an error is from.")
    )
    for part in getattr(command, "commands", {}).values():
        _takes_debug(part)


@click.group(cls=Group)
@click.version_option(package_name="tapath")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def main(debug: bool) -> None:
    """Find the best teacher -> assistant -> student path for an object detector."""
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise Invalid(
            f"Python has no {' and no '.join(lacking)} on {platform.system()}: tapath runs on Linux, and on Windows "
            "in WSL2; install it there, after `wsl --install`"
        )


for command in (
    running.plan,
    running.run,
    running.submit,
    running.status,
    running.why,
    asking.best,
    asking.report,
    student.predict,
    student.export,
    student.latency,
    measuring.evaluate,
    measuring.data,
    starting.init,
    starting.doctor,
    starting.schema,
    starting.completion,
    housekeeping.gc,
    housekeeping.reproduce,
):
    main.add_command(command)

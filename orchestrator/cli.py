"""The command line: tapath COMMAND. Each command is in `commands`."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.commands import asking, housekeeping, measuring, running, starting
from orchestrator.document import printable
from trainers.call import Invalid

# The exit code after Ctrl-C; 2 is bad input, as in click itself. `session` has the others.
INTERRUPTED = 130


class Group(click.Group):
    """Turns a user's mistake into one message and exit code 2, and Ctrl-C into 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Invalid as error:
            if ctx.params.get("debug"):
                raise
            where = ".".join(str(part) for part in error.where)
            lines = f"error: {f'{where}: ' if where else ''}{error}".split("\n")
            click.echo("\n".join(map(printable, lines)), err=True)  # it may have names out of files in it
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Group)
@click.version_option(package_name="tapath")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def main(debug: bool) -> None:
    """Find the best teacher -> assistant -> student path for an object detector."""


for command in (
    running.plan,
    running.run,
    running.submit,
    running.status,
    running.why,
    asking.best,
    asking.report,
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

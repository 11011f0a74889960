"""The program `tile-infer`."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from .bench import bench
from .demo import demo
from .export import export
from .failure import FAILED, WRONG_USAGE, explain
from .finish import finish
from .inspect import inspect
from .interrupt import Interrupted, stoppable
from .plan import plan
from .score import score
from .segment import segment
from .terminal import Terminal
from .train import train
from .verify import verify

app = App(
    name="tile-infer",
    version=version("tile-infer"),
    help_flags=["--help", "-h"],
    usage="Usage: tile-infer IMAGE... --model MODEL [OPTIONS]",
    # A file may be called `[1].tif`: no argument is JSON.
    default_parameter=Parameter(negative=(), show_default=False, json_list=False, json_dict=False),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)
app.default(segment)
app.command(plan, usage="Usage: tile-infer plan IMAGE --model MODEL [OPTIONS]")
app.command(finish, usage="Usage: tile-infer finish MASK [OPTIONS]")
app.command(inspect, usage="Usage: tile-infer inspect MODEL [OPTIONS]")
app.command(bench, usage="Usage: tile-infer bench [OPTIONS]")
app.command(export, usage="Usage: tile-infer export NETWORK|CHECKPOINT --out FILE.onnx [OPTIONS]")
app.command(demo, usage="Usage: tile-infer demo [FOLDER]")
app.command(
    train, usage="Usage: tile-infer train IMAGES LABELS --network NAME --out FILE.onnx [OPTIONS]"
)
app.command(score, usage="Usage: tile-infer score MASK TRUTH [OPTIONS]")
app.command(verify, usage="Usage: tile-infer verify MASK [OPTIONS]")
app.meta.group_parameters = Group("Messages", sort_key=9)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code.

    0 is done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
    """
    tokens = sys.argv[1:] if tokens is None else tokens
    try:
        if not tokens:
            app.help_print()
            return WRONG_USAGE
        return app.meta(tokens) or 0
    except CycloptsError as error:
        failure = explain(error)
        Terminal().error(failure.text)
        return failure.exit_code


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[bool, Parameter(alias="-q")] = False,
    verbose: Annotated[bool, Parameter(alias="-v")] = False,
) -> int:
    """Run a command, and turn whatever stops it into a line and an exit code.

    Args:
        tokens: The command line without the options below.
        quiet: Print warnings and errors only.
        verbose: Print tracebacks, and the warnings of other libraries.
    """
    terminal = Terminal(quiet=quiet, verbose=verbose)
    what: Callable[..., Any] | None = None
    given: dict[str, Any] = {}
    try:
        with stoppable(), terminal.in_charge():
            what, bound, left = app.parse_args(tokens)
            given = bound.arguments
            context = {"terminal": terminal} if "terminal" in left else {}
            code = what(*bound.args, **bound.kwargs, **context) or 0
            sys.stdout.flush()
            return code
    except Interrupted as interruption:
        word = "interrupted" if interruption.exit_code == 130 else "terminated"
        terminal.say(word, _what_remains(what, given))
        return interruption.exit_code
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (Exception, SystemExit) as error:  # no failure ends the program with a code of its own
        failure = explain(error)
        terminal.error(failure.text)
        if verbose:
            terminal.traceback()
        return failure.exit_code


def _what_remains(what: Callable[..., Any] | None, given: dict[str, Any]) -> str:
    if what not in (segment, demo, train, finish):
        return "nothing was written"
    if what is train and not given["out"].with_suffix(".pt").exists():
        return "no checkpoint was written yet; the same command begins anew"
    overwrites = given.get("overwrite") or ("conduct" in given and given["conduct"].overwrite)
    without = " without --overwrite" if overwrites else ""
    kept = "the last checkpoint is" if what is train else "finished blocks are"
    return f"{kept} kept; the same command{without} continues"

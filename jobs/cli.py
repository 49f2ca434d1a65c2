"""The command line `prectr`: a table from a command's name to its module and one line of help.

Only the module of the command that runs is imported, so that `prectr --help` is instant. Results go to standard
output, progress and messages to standard error. Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration;
a user's mistake never ends in a traceback.
"""

import importlib
import sys
from typing import Annotated, Any, NamedTuple

import typer

INTERRUPTED = 130


class Entry(NamedTuple):
    """Where a command is, and what it is for."""

    module: str
    help: str


COMMANDS = {
    "demo": Entry("demo", "Run all stages on the built-in marketplace or your log, then score a query over HTTP."),
    "simulate": Entry("simulate", "Make a log with known truth: a marketplace, or users on a real catalogue."),
    "import": Entry("import_log", "Bring a published data set, or a log that a mapping file describes, into tables."),
    "validate": Entry("validate", "Check a log (Parquet or CSV) and publish it as tables; bad rows go to quarantine."),
    "train-teacher": Entry("train_teacher", "Fit a causal language model to the judgments, as a teacher of relevance."),
    "teacher serve": Entry("teacher", "Serve the teacher over HTTP, to judge one pair at a time."),
    "teacher prompt": Entry("teacher", "Print one prompt exactly as the teacher gets it."),
    "select-pairs": Entry("select_pairs", "Choose the pairs that the teacher is asked about."),
    "label": Entry("label", "Have the teacher label query-item relevance; resumable, a rerun asks what is missing."),
    "ledger stats": Entry("ledger", "Count labels, errors, repeats, shards and bytes of each prompt and model."),
    "ledger export": Entry("ledger", "Write the ledger's rows into one file, with the prompt and model of each."),
    "ledger gc": Entry(
        "ledger", "Merge small files and remove settled errors; no label is lost unless you name its context."
    ),
    "distill": Entry("distill", "Distil the teacher's labels into a light transformer encoder."),
    "export": Entry("export", "Write a distilled encoder as a plain checkpoint, which other libraries read."),
    "score-relevance": Entry("score_relevance", "Level probabilities of every distinct logged or candidate pair."),
    "mine-preferences": Entry("mine_preferences", "Mine which relevance levels users, queries and categories click."),
    "preferences show": Entry("preferences", "Show mined preferences of a query; with --html write a page about all."),
    "preferences check": Entry("preferences", "Compare mined tolerances with the true ones of a simulated log."),
    "build-samples": Entry("build_samples", "Rows with everything known before them, and the state of serving."),
    "train": Entry("train", "Train a ranker and publish it as a bundle."),
    "sweep": Entry("sweep", "Search the settings of train with Ray Tune; writes a file that train --config takes."),
    "evaluate": Entry("evaluate", "Judge rankers on the same test day; with --models, train what is missing first."),
    "ablate": Entry("ablate", "Train and judge PRECTR-V2 without one part at a time, several seeds each."),
    "report": Entry("report", "Write a page about a workspace, as HTML, Markdown and JSON."),
    "publish": Entry("publish", "Publish the online state where servers read it: LMDB or Redis."),
    "serve": Entry("serve", "Serve rankers over HTTP until interrupted: scores, events, A/B tests, a playground."),
    "rollout status": Entry("rollout", "Compare what a server serves with the file of models."),
    "rollout back": Entry("rollout", "Return the file of models to what was served before it."),
    "score": Entry("score", "Score requests from standard input, one JSON object a line."),
    "simulate-experiment": Entry("simulate_experiment", "Play an online test of two rankers on a simulated log."),
    "analyze-experiment": Entry("analyze_experiment", "Judge an online experiment: intervals by user, CUPED, bounds."),
    "pipeline": Entry("pipeline.pipeline", "Run the whole chain as one job; stages that are up to date are skipped."),
    "submit": Entry("cluster.submit", "Run a command as a job of a Ray cluster: submit --address URL train ..."),
    "jobs list": Entry("cluster.submit", "List the jobs of prectr on a cluster, the newest first."),
    "jobs logs": Entry("cluster.submit", "Print the output of a job."),
    "jobs stop": Entry("cluster.submit", "Stop a job; the same command submitted again goes on where it was."),
    "plan": Entry("sizing.plan", "Bytes, core-hours, GPU-hours, replicas and the first bottleneck of a log's size."),
    "doctor": Entry("cluster.doctor", "Check versions, memory, ports, vLLM, storage and a cluster, with what to do."),
    "config show": Entry("config", "Print the resolved configuration, or with --docs what each setting means."),
    "config explain": Entry("config", "Say what one setting, or each setting of a section, means."),
}
GROUPS = {
    "teacher": "Serve a teacher, or print a prompt of it.",
    "ledger": "Count, export or tidy the ledger of the teacher's labels.",
    "preferences": "Show or check mined preferences.",
    "rollout": "Compare served models with their file, or return to earlier ones.",
    "jobs": "List, follow or stop the jobs of a Ray cluster.",
    "config": "Show and explain the configuration.",
}


class CommandTable(typer.core.TyperGroup):
    """A group of the commands in `COMMANDS` below `prefix`; each is imported when it runs, not when it is listed."""

    prefix = ""

    def fill(self, prefix: str = "") -> None:
        """Add the listed commands without importing them."""
        self.prefix = prefix
        for words, entry in COMMANDS.items():
            if not words.startswith(prefix):
                continue
            name, *inner = words.removeprefix(prefix).split()
            if not inner:
                self.commands[name] = typer.core.TyperCommand(name, help=entry.help)
            elif name not in self.commands:
                group = CommandTable(name=name, help=GROUPS[name], no_args_is_help=True)
                group.fill(f"{name} ")
                self.commands[name] = group

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself, imported; an unknown one is refused with the nearest name."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed if name is None else self.command_of(name), rest

    def command_of(self, name: str) -> Any:
        """A command by its name in this group, imported; None where there is none."""
        words = self.prefix + name
        if words not in COMMANDS:
            return self.commands.get(name)
        entry = COMMANDS[words]
        importlib.import_module(f"jobs.{entry.module}")
        from jobs.options import REGISTERED

        registered = REGISTERED[words]
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name, help=entry.help, context_settings=registered.context_settings)(registered.callback)
        return typer.main.get_command(single)


def _print_version(wanted: bool) -> None:
    if wanted:
        from prectr import __version__

        typer.echo(f"prectr {__version__}")
        raise typer.Exit


def command_table() -> CommandTable:
    """The command line as a click group."""
    app = typer.Typer(
        name="prectr",
        cls=CommandTable,
        help="From a search log to a served ranker of joint relevance and click-through rate (PRECTR-V2 on Ray).",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        pass

    table = typer.main.get_group(app)
    assert isinstance(table, CommandTable)
    table.fill()
    return table


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command; errors that a user can mend are printed without a traceback."""
    try:
        command_table().main(args=arguments, prog_name="prectr")
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:  # typer's answer to Ctrl-C
            typer.echo("prectr: interrupted; published artifacts are whole, run the same command to go on.", err=True)
        raise
    except Exception as error:
        from prectr.core.mirror import with_uris
        from prectr.core.ray_errors import find_user_error
        from prectr.core.secrets import masked

        user_error = find_user_error(error)
        if user_error is None:
            raise
        typer.echo(f"prectr: {masked(with_uris(str(user_error)))}", err=True)
        sys.exit(user_error.exit_code)


if __name__ == "__main__":
    main()

"""The command `e2urec`.

Data goes to stdout, talk to stderr. What the user can mend ends with one sentence, a hint and exit code 2; `--debug` shows where it
came from. Heavy packages are imported inside the commands, so that help answers at once.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from e2urec_core.errors import BadSetting, UserError
from flows.backup_commands import backup, restore
from flows.data_commands import app as data_commands
from flows.doctor_command import doctor
from flows.explain_command import DryRun, explain, show_dry_run
from flows.finding import find_polluted
from flows.flags import FLAGS, AsJson, Debug, Scalar, StoreAt, Workspace, add_scalars, environment_kept, show_knobs, take_settings
from flows.gc_command import gc
from flows.models_commands import app as models_commands
from flows.night_commands import erase, nightly
from flows.receipt_commands import app as receipt_commands
from flows.requests_commands import app as requests_commands
from flows.run_commands import runs, stage
from flows.scan_command import scan
from flows.serving_command import serve, stop
from flows.surroundings import prepare, storage_fault
from tasks import _log

EXIT_USER_ERROR = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Makes an LLM recommender forget chosen users, and measures it.",
)

app.add_typer(data_commands, name="data")
app.add_typer(models_commands, name="models")
app.add_typer(receipt_commands, name="receipt")
app.add_typer(requests_commands, name="requests")
app.command(name="find-polluted")(find_polluted)
app.command()(nightly)
app.command()(erase)
app.command()(scan)
app.command()(doctor)
app.command()(stage)
app.command()(runs)
app.command()(explain)
app.command()(gc)
app.command()(backup)
app.command()(restore)
app.command()(serve)
app.command()(stop)


@app.command(add_help_option=False)
def unlearn(
    dataset: Annotated[str | None, typer.Argument(help="Dataset, such as `sample` or `ml-1m`.")] = None,
    backbone: Annotated[str | None, typer.Argument(help="Backbone, such as `tiny-t5`.")] = None,
    method: Annotated[str | None, typer.Argument(help="Method, such as `e2urec`.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Named settings to start from: demo, default, smoke, paper, memorising, table-1 to 5.")
    ] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    seed: Scalar = None,
    device: Scalar = None,
    threads: Scalar = None,
    processes: Scalar = None,
    precision: Scalar = None,
    execution: Scalar = None,
    fan_out: Scalar = None,
    parallel: Scalar = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
    show_help: Annotated[bool, typer.Option("--help", help="Show this message and the settings of the words.")] = False,
) -> None:
    """Forget users and measure it: e2urec unlearn DATASET BACKBONE METHOD [--section.field VALUE ...]."""
    words = {"dataset": dataset, "backbone": backbone, "method": method}
    if show_help:
        _show_knobs(words, preset)
        return
    from flows.runs import build_run

    missing = [word.upper() for word, value in words.items() if value is None]
    if missing:
        raise BadSetting(f"{len(missing)} of 3 words are missing: {' '.join(missing)}", hint="e2urec unlearn sample tiny-t5 e2urec")
    add_scalars(seed, device, threads, processes, precision, execution, fan_out, parallel)
    run = build_run({name: str(value) for name, value in words.items()}, preset, FLAGS)
    if dry_run:
        show_dry_run(run, "unlearn", workspace, as_json=as_json)
        return
    place = prepare(workspace)
    run.dataset.fingerprint()
    run.backbone.fingerprint()
    from flows.shown import show_report
    from flows.unlearn import unlearn as unlearn_flow

    show_report(place, unlearn_flow(run, str(place)), as_json=as_json)


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="Dataset, such as `sample` or `ml-1m`.")],
    backbone: Annotated[str, typer.Argument(help="Backbone, such as `tiny-t5`.")],
    preset: Annotated[str | None, typer.Option("--preset", help="Named settings to start from, as for `unlearn`.")] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    seed: Scalar = None,
    device: Scalar = None,
    threads: Scalar = None,
    processes: Scalar = None,
    precision: Scalar = None,
    execution: Scalar = None,
    fan_out: Scalar = None,
    parallel: Scalar = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a recommender on everybody and release it through the gates: the first champion."""
    from flows.runs import build_run

    add_scalars(seed, device, threads, processes, precision, execution, fan_out, parallel)
    words = {"dataset": dataset, "backbone": backbone, "method": "original"}
    run = build_run(words, preset, {"release.then": "promote", **FLAGS, "forget.nobody": "true"})
    if dry_run:
        show_dry_run(run, "train", workspace, as_json=as_json)
        return
    place = prepare(workspace)
    run.dataset.fingerprint()
    run.backbone.fingerprint()
    from flows.shown import show_trained
    from flows.train import train as train_flow

    show_trained(place, train_flow(run, str(place)), as_json=as_json)


@app.command()
def compare(
    dataset: Annotated[str, typer.Argument(help="Dataset, such as `sample` or `ml-1m`.")],
    backbone: Annotated[str, typer.Argument(help="Backbone, such as `tiny-t5`.")],
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Methods with commas between them, or `all`, the default; METHOD:KNOB=VALUE is a variant."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Seeds that are reported, from `--seed` on; 3 by default.")] = None,
    budget: Annotated[int | None, typer.Option("--budget", help="Tries of each method's knobs; 4 by default.")] = None,
    tuning_seed: Annotated[int | None, typer.Option("--tuning-seed", help="Seed on which knobs are chosen; 10 by default.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Named settings to start from, as for `unlearn`.")] = None,
    workspace: Workspace = None,
    store: StoreAt = None,
    seed: Scalar = None,
    device: Scalar = None,
    threads: Scalar = None,
    precision: Scalar = None,
    fan_out: Scalar = None,
    parallel: Scalar = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare methods on the same rows: knobs chosen blind, several seeds, intervals, and what chance alone would give."""
    from flows.comparison import build_comparison

    add_scalars(seed, device, threads, None, precision, None, fan_out, parallel)
    given = {"seeds": seeds, "budget": budget, "tuning_seed": tuning_seed}
    plan = build_comparison({"dataset": dataset, "backbone": backbone}, methods, preset, FLAGS, given)
    if dry_run:
        show_dry_run(plan, "compare", workspace, as_json=as_json)
        return
    place = prepare(workspace)
    plan.run.dataset.fingerprint()
    plan.run.backbone.fingerprint()
    from flows.compare import compare as compare_flow
    from flows.shown import show_comparison

    show_comparison(place, compare_flow(plan, str(place)), as_json=as_json)


def main() -> None:
    """Entry point of the command `e2urec`."""
    FLAGS.clear()
    debug = "--debug" in sys.argv
    try:
        arguments = take_settings(sys.argv[1:])
        with environment_kept():
            app(arguments, standalone_mode=False)
    except UserError as error:
        if debug:
            raise
        _log.write_fault(error)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _log.write("stopped; finished stages are in the store, run the command again to go on", {}, "WARNING")
        sys.exit(130)
    except Exception as error:
        # Wrong words and flags that typer itself finds; it has no public base class of its own.
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            _log.write_fault(BadSetting(error.format_message().rstrip("."), hint="`e2urec --help` lists the commands and their flags"))
            sys.exit(EXIT_USER_ERROR)
        if not debug and (fault := storage_fault(error)) is not None:
            _log.write_fault(fault)
            sys.exit(EXIT_USER_ERROR)
        if not debug and _log.as_json():
            _log.write_bug(error)
            sys.exit(1)
        raise


def _show_knobs(words: dict[str, str | None], preset: str | None) -> None:
    from e2urec_core.plugins import kinds, load, word
    from flows.knobs import knobs
    from flows.presets import PRESETS, preset_sections
    from flows.runs import FAMILIES, Run, build_run

    print(
        "usage: e2urec unlearn DATASET BACKBONE METHOD [--preset NAME] [--workspace DIR] [--store ADDRESS] [--dry-run] [--json] [--debug] "
        "[--section.field VALUE ...]\n"
    )
    for name, base in FAMILIES.items():
        print(f"{name + 's':<10} {', '.join(map(word, kinds(base.package)))}")
    print(f"{'presets':<10} {', '.join(PRESETS)}")
    if any(value is None for value in words.values()):
        print("\nname all three words before --help to see their settings")
        return
    chosen = {name: str(value) for name, value in words.items()}
    members = {name: load(base.package, chosen[name]) for name, base in FAMILIES.items()}
    preset_sections(preset, **{name: member.model_fields["kind"].default for name, member in members.items()})
    run: Run = build_run(chosen, preset, {})
    show_knobs(knobs(members, run.canonical()))


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()

"""The `winnow` command: what it accepts, and which module answers. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from winnow_cli.errors import InvariantError, UsageError

DEFAULT_STACK = "winnow"
DEFAULT_REPORT = Path("build/demo/report.html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 1 when the loop broke a promise, 2 when it was asked wrongly."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    if "run" not in given:
        parser.print_help()
        return 2
    try:
        return int(given.run(given))
    except UsageError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return 2
    except InvariantError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("winnow: stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Every command and option of `winnow`."""
    parser = argparse.ArgumentParser(
        prog="winnow",
        description="Winnow picks the records worth a person's time, has them labeled, retrains, proves and rolls out.",
        epilog="Commands speak to AWS with your usual credentials, or to a local cloud when AWS_ENDPOINT_URL names one.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _demo(commands)
    _doctor(commands)
    _simulate(commands)
    _local(commands)
    _status(commands)
    _select(commands)
    _strategies(commands)
    _config(commands)
    _put(commands)
    _import(commands)
    _export(commands)
    return parser


Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _later(module: str, function: str = "run") -> Callable[[argparse.Namespace], int]:
    """A function of a module of this package, which is imported when it is called."""
    return lambda given: int(getattr(import_module(f"winnow_cli.{module}"), function)(given))


def _demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="run weeks of the loop in a minute, here",
        description="Deploys a fresh local stack, drops data into its pool and lives through weeks of the loop: on the "
        "handwritten digits of scikit-learn, or on your own labeled data, whose labels act as the annotators' truth.",
    )
    _labeled(demo)
    demo.add_argument("--rounds", type=_count, help="labeling rounds (default: 7 for the digits, 5 with --data)")
    demo.add_argument("--batch", type=_count, help="records asked in a round (default: from the number of classes)")
    demo.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: %(default)s)")
    demo.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    demo.add_argument(
        "--report",
        type=Path,
        default=DEFAULT_REPORT,
        metavar="FILE",
        help="where the HTML report goes (default: %(default)s)",
    )
    drill = argparse.BooleanOptionalAction
    demo.add_argument("--poison", action=drill, help="one round is answered by spammers (default: without --data)")
    demo.add_argument("--skew", action=drill, help="one challenger is served wrongly (default: without --data)")
    demo.add_argument("--quiet", action="store_true", help="no progress on standard error")
    demo.set_defaults(run=_later("demo.command"))


def _labeled(parser: argparse.ArgumentParser, *, more: str = "") -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help=f"JSONL, CSV (both also .gz) or Parquet, or a folder or archive of images{more}",
    )
    parser.add_argument(
        "--label", metavar="FIELD", help="field or labels.csv column with the class or number; 'folder' for sub-folders"
    )
    parser.add_argument("--text", metavar="FIELD", help="field with the text, where 'text' is not its name")
    parser.add_argument("--kind", choices=("text", "image", "table"), help="what a record is (default: from the files)")
    parser.add_argument(
        "--task", choices=("classification", "regression"), help="what a table's label is (default: from the labels)"
    )
    parser.add_argument("--positive", metavar="CLASS", help="a rare class: compare models by its average precision")
    parser.add_argument(
        "--encoder", type=Path, metavar="DIR", help="of texts or images: a folder with model.onnx (and tokenizer.json)"
    )


_NPZ = "; .npz with x_train, y_train (x_test, y_test)"


def _doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="whether active learning fits your data and budget",
        description="Looks at labeled data: how much there is to choose from, prices, classes, duplicates, and what quick models "
        "show of calibration, doubt and the learning curve. Says whether active learning fits, with the reasons.",
    )
    _labeled(doctor, more=_NPZ)
    doctor.add_argument(
        "--pool",
        type=_count,
        metavar="N",
        help="unlabeled records there are (default: those without a label in --data)",
    )
    doctor.add_argument("--price", type=float, metavar="MONEY", help="what one label costs; 0 for free ones")
    doctor.add_argument("--budget", type=float, metavar="MONEY", help="what may be spent on labels in all")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    _cached(doctor)
    doctor.set_defaults(run=_later("doctor.command", "run_command"))


def _simulate(commands: Commands) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="which strategy and batch size pays on your labeled data, before a cent is spent",
        description="Plays active learning on labeled data: every strategy buys labels batch by batch, the loop's own model "
        "learns from them and is judged on records that were held out. Without --data on scikit-learn's digits.",
    )
    _labeled(simulate, more=_NPZ)
    simulate.add_argument("--test", type=Path, metavar="FILE", help="records that judge (default: a share of --data)")
    simulate.add_argument(
        "--holdout", type=float, default=0.3, metavar="SHARE", help="without --test: the share (default: %(default)s)"
    )
    simulate.add_argument(
        "--strategies",
        type=_names,
        metavar="A,B,C",
        help="names (default: default,random,margin,badge; see docs/simulate.md)",
    )
    simulate.add_argument("--batch", type=_count, metavar="N", help="labels a round (default: from pool and classes)")
    simulate.add_argument("--batches", type=_counts, metavar="N,M", help="several batch sizes, compared")
    simulate.add_argument(
        "--initial", type=_count, metavar="N", help="labels before the first choice (default: as --batch)"
    )
    simulate.add_argument("--budget", type=_count, metavar="N", help="labels in all (default: 15 rounds)")
    simulate.add_argument("--seeds", type=_count, default=5, metavar="N", help="repetitions (default: %(default)s)")
    simulate.add_argument(
        "--target",
        type=float,
        metavar="LEVEL",
        help="level to reach, as 0.85 (default: what random reaches in the end)",
    )
    simulate.add_argument(
        "--price", type=float, metavar="MONEY", help="what one label costs, to count savings in money"
    )
    simulate.add_argument("--html", type=Path, metavar="OUT", help="write a page with curves and figures")
    simulate.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    _cached(simulate)
    simulate.add_argument("--fresh", action="store_true", help="forget trials that were finished before")
    simulate.set_defaults(run=_later("simulate.command", "run_command"))


def _cached(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=_count, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where vectors and finished work are kept (default: your cache folder)",
    )


def _local(commands: Commands) -> None:
    local = commands.add_parser("local", help="the local cloud", description="An AWS account on this machine.")
    actions = local.add_subparsers(title="actions", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="start it, deploy the template and serve any AWS client")
    up.add_argument("--port", type=int, default=4566, help="port on 127.0.0.1 (default: %(default)s)")
    up.add_argument("--speed", type=float, default=60.0, help="virtual seconds a real second (default: %(default)s)")
    up.add_argument(
        "--workers",
        choices=("inprocess", "awslambdaric"),
        default="inprocess",
        help="how functions run (default: %(default)s)",
    )
    up.add_argument("--template", type=Path, help="template to deploy (default: the one of this repository)")
    _stack(up)
    up.add_argument("--empty", action="store_true", help="deploy nothing: `sam deploy` will")
    up.set_defaults(run=_later("local", "up"))


def _status(commands: Commands) -> None:
    status = commands.add_parser("status", help="what the loop is doing: ledger, invariants, champion, batches")
    status.add_argument("--json", action="store_true", help="print one JSON document")
    _stack(status)
    status.set_defaults(run=_later("status"))


def _select(commands: Commands) -> None:
    select = commands.add_parser("select", help="have a batch selected now, without waiting for the schedule")
    select.add_argument(
        "--anyway", action="store_true", help="also where the next labels are not worth budget.gain_worth_usd"
    )
    _stack(select)
    select.set_defaults(run=_later("select"))


def _strategies(commands: Commands) -> None:
    strategies = commands.add_parser(
        "strategies", help="which strategies and selectors there are, with needs, cost and source"
    )
    strategies.add_argument("--json", action="store_true", help="print one JSON document")
    strategies.set_defaults(run=_later("strategies"))


def _config(commands: Commands) -> None:
    config = commands.add_parser("config", help="loop.yaml: check it, explain it, push it")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say what is wrong with a loop file, field by field")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=_run_check)
    explain = actions.add_parser("explain", help="every field with its default and its meaning")
    explain.add_argument(
        "field", nargs="?", default="", metavar="FIELD", help="only fields under this path, as in 'gate'"
    )
    explain.set_defaults(run=_run_explain)
    push = actions.add_parser("push", help="check a loop file and make it the stack's")
    push.add_argument("file", type=Path, metavar="FILE")
    _stack(push)
    push.set_defaults(run=_later("config", "push"))


def _run_check(given: argparse.Namespace) -> int:
    from winnow_cli.config import check

    return check(given.file)


def _run_explain(given: argparse.Namespace) -> int:
    from winnow_cli.config import explain

    return explain(given.field)


def _put(commands: Commands) -> None:
    put = commands.add_parser(
        "put",
        help="drop files into the pool",
        description="Drops files into the pool: JSON Lines, CSV, text (each also gzipped), Parquet, PNG and JPEG. Texts "
        "stand under 'text', images under 'image', a table's columns under their names.",
    )
    put.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files, or folders whose files are dropped")
    put.add_argument("--prefix", default="", help="put before every key")
    put.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="look at the files first (default: yes)"
    )
    _stack(put)
    put.set_defaults(run=_later("pool", "put"))


def _import(commands: Commands) -> None:
    importing = commands.add_parser("import", help="bring into the stack what was made elsewhere")
    actions = importing.add_subparsers(title="actions", metavar="WHAT", required=True)
    encoder = actions.add_parser(
        "encoder",
        help="a network that makes vectors of texts or images, for models to be trained on",
        description="Imports a folder with model.onnx (and tokenizer.json, when it reads texts). Name it in loop.yaml under "
        "training.encoder: the models trained from then on stand on it.",
    )
    encoder.add_argument("folder", type=Path, metavar="DIR", help="the folder")
    encoder.add_argument("--name", help="what loop.yaml calls it (default: the folder's name)")
    _stack(encoder)
    encoder.set_defaults(run=_later("importing_encoder"))
    _import_labels(actions)
    _import_model(actions)


def _import_labels(actions: Commands) -> None:
    labels = actions.add_parser(
        "labels",
        help="records with labels that exist already: the first champion is trained on them",
        description="Reads JSON Lines, CSV (each also gzipped), Parquet, Label Studio's JSON export, or a folder of "
        "images with labels.csv (columns file,label) or a sub-folder a class; says what it found and drops it into the pool.",
    )
    labels.add_argument("files", type=Path, nargs="+", metavar="FILE", help="files or folders")
    labels.add_argument("--label", metavar="FIELD", help="field or column with the label (default: label)")
    labels.add_argument(
        "--text", metavar="FIELD", help="field or column with the text or image, where it has another name"
    )
    labels.add_argument("--dry-run", action="store_true", help="say what is found and upload nothing")
    _provenance(labels)
    labels.set_defaults(run=_later("importing_labels"))


def _import_model(actions: Commands) -> None:
    model = actions.add_parser(
        "model",
        help="a model made elsewhere, as champion",
        description="Checks a folder with model.json and model.onnx (docs/bring-your-own-model.md) and makes it champion: it "
        "is published, rolled out as every champion is, and the pool is scored by it.",
    )
    model.add_argument("folder", type=Path, metavar="DIR", help="the package")
    model.add_argument(
        "--replace", metavar="REASON", help="replace a champion that was trained or imported, and say why"
    )
    model.add_argument("--dry-run", action="store_true", help="check it and change nothing")
    _provenance(model)
    model.set_defaults(run=_later("importing_model"))


def _provenance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", metavar="NAME", help="who imports it (default: your user name)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    _stack(parser)


def _export(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        help="take records, labels or datasets out",
        description="Writes what the stack holds, always in its masked form: the pool with the champion's view of it, the "
        "labels with where they come from, or a dataset version by its parts. winnow import labels reads all of it.",
    )
    export.add_argument("what", choices=("pool", "labels", "datasets"), help="what is wanted")
    export.add_argument("out", type=Path, metavar="OUT", help="file to write; a folder for datasets and for hf")
    export.add_argument(
        "--format", choices=("jsonl", "csv", "parquet", "hf", "label-studio"), default="jsonl",
        help="jsonl, csv, parquet, hf (a folder for datasets.load_dataset), label-studio (default: %(default)s)",
    )  # fmt: skip
    export.add_argument("--dataset", metavar="VERSION", help="datasets: which version (default: the newest)")
    export.add_argument(
        "--excel-safe", action="store_true", help="csv: a quote before cells that a spreadsheet would calculate"
    )
    export.add_argument("--json", action="store_true", help="print one JSON document")
    _stack(export)
    export.set_defaults(run=_later("export"))


def _stack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stack",
        default=os.environ.get("WINNOW_STACK", DEFAULT_STACK),
        help="name of the stack (default: %(default)s)",
    )
    parser.add_argument("--region", help="region (default: as your AWS configuration says)")


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def _counts(text: str) -> list[int]:
    return sorted({_count(part) for part in text.split(",")})


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]

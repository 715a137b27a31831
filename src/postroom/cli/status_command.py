"""`postroom status`: how a running process and its spool are."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import FAILED, stdout_console, write_json
from postroom.cli.options import AsJson, ConfigFile, Environment, settings_from_options
from postroom.cli.words import counts, duration, printable, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from postroom.libs.config_loader import Config

app = typer.Typer(help="Show how a running process and its spool are.")

USUAL_PORT = 9464
"""The port of the examples: asked when neither the settings nor the command line name one."""

NOBODY = 3
_TIMEOUT_S = 5.0
_MOST_BYTES = 16 * 1024 * 1024
_ALWAYS = ("received", "accepted", "delivered", "spooled")
_IF_ANY = (
    "dead_lettered",
    "in_flight",
    "pending",
    "refused",
    "failed",
    "quarantined",
    "taken_over",
    "drained",
    "unaccounted",
)


@app.command()
def status(
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Where the process serves its metrics. Else metrics.port says it."),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option("--spool", metavar="DIR", help="Look into this spool, whether or not a process is running."),
    ] = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show how a running process and its spool are.

    Of the process: whether it is ready, each part that is not well, the books by topic, the paths that are not direct,
    and the spool with its oldest event. The process must serve its metrics (`postroom run --metrics-port 9464`). With
    `--spool` alone only the folder is looked at, and no process need be there.

    Exit codes: 0 healthy; 1 not ready, or events unaccounted; 2 usage or settings; 3 nothing answers.

    Examples: `postroom status`, `postroom status --url http://127.0.0.1:9464 --json`, `postroom status --spool ./spool`
    """
    from postroom.cli.spool_folder import print_folder, told_folder

    settings = settings_from_options(config=config, env=env)
    folder = spool or settings.spool.dir
    address = _address(url, settings, is_needed=spool is None)
    document, problem = None, ""
    if address is not None:
        try:
            document = _ask(address)
        except (OSError, ValueError) as exc:
            problem = f"nothing of postroom answers at {address}: {_reason(exc)}"
    is_there = folder is not None and os.path.isdir(folder)  # noqa: PTH112 - it raises for no name
    slots = None if folder is None or (spool is None and not is_there) else told_folder(folder)
    if as_json:
        answer: dict[str, object] = {"url": address, "process": document, "folder": slots}
        write_json(answer | ({"problem": problem} if problem else {}))
    else:
        out = stdout_console()
        if document is not None:
            _print_process(out, str(address), document)
        if problem:
            typer.echo(f"postroom: {problem}. Start it with --metrics-port, or name its address with --url", err=True)
        if slots is not None:
            print_folder(out, slots)
    if problem:
        raise typer.Exit(NOBODY)
    if document is not None and not is_healthy(document):
        raise typer.Exit(FAILED)


def _address(url: str | None, settings: "Config", *, is_needed: bool) -> str | None:
    """Where to ask, without a path; None when nobody named a place and none is needed."""
    from urllib.parse import urlsplit

    if url is None:
        port = settings.metrics.port
        if port is None and not is_needed:
            return None
        host = settings.metrics.host
        host = "127.0.0.1" if host == "0.0.0.0" else "[::1]" if host == "::" else host  # noqa: S104 - not listened on
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port or USUAL_PORT}"
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:
        raise typer.BadParameter(f"{url!r} is no address such as http://127.0.0.1:{USUAL_PORT}", param_hint="--url")
    return f"{parts.scheme}://{parts.netloc}"


def _ask(address: str) -> dict[str, Any]:
    """The status document. Raises OSError when nobody answers, ValueError for an answer that is none."""
    import json
    from urllib.request import ProxyHandler, build_opener

    # No proxy: what is asked is this machine, or one beside it.
    with build_opener(ProxyHandler({})).open(f"{address}/status", timeout=_TIMEOUT_S) as answer:
        document = json.loads(answer.read(_MOST_BYTES))
    if not isinstance(document, dict) or not isinstance(document.get("components"), dict):
        raise ValueError("its answer is no status of postroom")  # noqa: TRY004 - one kind for all that is no status
    return document


def _reason(exc: Exception) -> str:
    import json
    from urllib.error import HTTPError, URLError

    if isinstance(exc, HTTPError):
        return f"HTTP {exc.code}"
    if isinstance(exc, URLError):
        return str(getattr(exc.reason, "strerror", None) or type(exc.reason).__name__)
    if isinstance(exc, json.JSONDecodeError | UnicodeDecodeError):
        return "its answer is no JSON"
    return str(exc) or type(exc).__name__


def is_healthy(document: "Mapping[str, Any]") -> bool:
    """Whether a status document says that the process lives, is ready, and has lost track of no event."""
    unaccounted = document.get("ledger", {}).get("total", {}).get("unaccounted", 0)
    return bool(document.get("live") and document.get("ready") and not unaccounted)


def _print_process(out: "Console", address: str, document: "Mapping[str, Any]") -> None:
    from rich.text import Text

    well = is_healthy(document)
    verdict = "ready" if document.get("ready") else "not ready" if document.get("live") else "not alive: restart it"
    style = "bold green" if well else "bold red"
    out.print(Text.assemble(f"{address}, pid {document.get('pid', '-')}: ", (verdict, style)))
    _print_parts(out, document["components"])
    if "ledger" in document:
        for topic, balance in document["ledger"]["topics"].items():
            out.print(f"{printable(topic)}: {_books(balance)}", markup=False)
        for name in ("dead_letters_by_reason", "refused_by_reason", "failed_by_reason"):
            if reasons := document["ledger"].get(name):
                out.print(f"{name.replace('_', ' ')}: {counts(reasons)}", markup=False)
        if unaccounted := document["ledger"]["total"].get("unaccounted"):
            out.print(f"[bold red]The books do not balance: {unaccounted:,} events are unaccounted for.[/]")
    for path in document.get("paths", ()):
        if path["state"] != "direct":
            problem = f", {path['problem']}" if path["problem"] else ""
            state = path["state"].replace("_", " ")
            out.print(f"path {printable(path['topic'])}: {state} for {duration(path['for_s'])}{problem}", markup=False)
    if spool := document.get("spool"):
        out.print(_spool_line(spool), markup=False)
    for problem in document.get("problems", ()):
        out.print(f"a part of the status could not be told: {problem}", markup=False, style="yellow")


def _print_parts(out: "Console", components: "Mapping[str, Any]") -> None:
    """The parts that are not well; one line where all are."""
    from rich.text import Text

    styles = {"ok": "green", "degraded": "yellow", "starting": "yellow", "down": "red"}
    rows = [(name, part) for name, part in components.items() if part["state"] != "ok"]
    if not rows:
        out.print(f"all {len(components)} parts are well", style="green")
    for name, part in rows:
        state = Text(f"{part['state']:10}", styles.get(part["state"], ""))
        out.print(Text.assemble(f"  {printable(name):18}", state, printable(part["detail"])))


def _books(balance: "Mapping[str, int]") -> str:
    """The numbers of a topic: those that say what is, and of the others those that are not 0."""
    numbers = ((name, balance.get(name, 0)) for name in (*_ALWAYS, *_IF_ANY))
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers if number or name in _ALWAYS)


def _spool_line(spool: "Mapping[str, Any]") -> str:
    records, dead_letters = spool["records"]["records"], spool["dead_letters"]["records"]
    parts = [
        f"spool {printable(spool['directory'])}: {records:,} records and {dead_letters:,} dead letters waiting",
        f"oldest {duration(spool['oldest_s'])}",
        f"{size(spool['used_bytes'])} of {size(spool['limit_bytes'])} ({spool['fullness']:.0%})",
    ]
    if not spool["takes"]:
        parts.append("it takes nothing now")
    if spool["quarantined"]:
        parts.append(f"{spool['quarantined']} files in quarantine")
    return ", ".join(parts)

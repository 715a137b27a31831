"""`postroom config`: check, show and write the settings."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import USAGE, stdout_console, write_json
from postroom.cli.options import AsJson, ConfigFile, Environment
from postroom.libs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from postroom.libs.config_loader import Config, Inspection

app = typer.Typer(help="Check, show and write the settings.", no_args_is_help=True)

MASK = "********"


@app.command()
def check(config: ConfigFile = None, env: Environment = None, as_json: AsJson = False) -> None:
    """Check the settings and name every problem; exit code 2 if there is one.

    Examples: `postroom config check`, `postroom config check --config config/kafka.yaml --env prod`
    """
    from postroom.libs.config_loader import inspect_config

    found = inspect_config(config, env=env)
    if as_json:
        problems = [{"key": item.key, "message": item.statement, "remedy": item.remedy} for item in found.problems]
        write_json({"ok": not problems, "file": _file(found.file), "environment": found.environment,
                    "problems": problems, "ignored_variables": found.ignored_variables})  # fmt: skip
    else:
        _tell(found)
    if found.problems:
        raise typer.Exit(USAGE)


@app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show the settings as they result from all sources; secrets are masked.

    Examples: `postroom config show --origin`, `postroom config show --env prod --json`
    """
    from postroom.libs.config_loader import load_config

    settings = load_config(config, env=env)
    values = {key: _plain(value) for key, value in settings.flat().items()}
    if as_json and origin:
        write_json({key: {"value": value, "origin": str(settings.origin(key))} for key, value in values.items()})
    elif as_json:
        write_json(values)
    else:
        _print_settings(settings, values, origins=origin)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or a folder to write kafka.yaml into.")] = Path(
        "kafka.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write a copy of the commented default settings.

    Examples: `postroom config init`, `postroom config init config/kafka.yaml --force`
    """
    from postroom.libs.config_loader import PACKAGED_FILE

    target = path / "kafka.yaml" if path.is_dir() else path
    try:
        _write(target, PACKAGED_FILE.read_bytes(), force=force)
    except FileExistsError as exc:
        raise ConfigurationError(f"{target} exists already", remedy="write over it with --force") from exc
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise ConfigurationError(f"{target} cannot be written: {reason}", remedy="check the path") from exc
    typer.echo(f"Wrote {target}. Set broker in it, then: postroom config check --config {target}")


def _write(target: Path, content: bytes, *, force: bool) -> None:
    """Write the whole file or nothing; without `force` an existing one is never touched."""
    if not force:
        with target.open("xb") as file:
            file.write(content)
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _file(file: Path | None) -> str | None:
    return None if file is None else str(file)


def _tell(found: "Inspection") -> None:
    source = "packaged defaults" if found.file is None else str(found.file)
    chosen = "" if found.environment is None else f", environment {found.environment}"
    for name in found.ignored_variables:
        sys.stderr.write(f"note: the variable {name} is no setting and is ignored\n")
    if not found.problems:
        typer.echo(f"OK: {source}{chosen}")
        return
    count = len(found.problems)
    sys.stderr.write(f"{source}{chosen}: {count} problem{'' if count == 1 else 's'}\n")
    for problem in found.problems:
        sys.stderr.write(f"  {problem}\n")


def _plain(value: object) -> Any:
    """The value as JSON has it, secrets masked."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else MASK


def _print_settings(settings: "Config", values: dict[str, Any], *, origins: bool) -> None:
    """One line a setting: its key, its value as JSON and, if asked for, where it came from."""
    import json

    from rich.text import Text

    console = stdout_console()
    lines = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    width = max(len(key) + len(text) for key, text in lines.items() if len(text) <= 40) + 2
    for key, text in lines.items():
        line = Text.assemble((key, "bold"), ": ", text)
        if origins:
            gap = " " * max(1, width - len(key) - len(text))
            line.append(f"{gap}# {settings.origin(key)}", style="dim")
        console.print(line)

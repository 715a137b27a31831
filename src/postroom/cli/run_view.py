"""What a person sees of a run: a live view on a terminal, a line a second anywhere else, and the summary."""

import threading
from typing import TYPE_CHECKING, Self

from postroom.cli.words import duration, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from postroom.services.producer_main import Run, RunSummary
    from postroom.services.spool_view import PathView

_LINE_EVERY_S = 1.0
_FRAMES_PER_S = 8
_RATE_WINDOW = 8  # frames over which the shown rate is taken


class Lines:
    """Writes one line a second to stderr."""

    def __init__(self, run: "Run", write: "Callable[[str], object]") -> None:
        self._run = run
        self._write = write
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="postroom-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _tick(self) -> None:
        before = 0
        while not self._done.wait(_LINE_EVERY_S):
            now = self._run.summary()
            accepted = now.accepted - now.taken_over
            self._write(line(now, accepted - before) + spool_line(now, self._run) + "\n")
            before = accepted


def line(now: "RunSummary", rate: float) -> str:
    """One line of progress; `rate` is accepted events per second just now."""
    return (
        f"{now.elapsed_s:7.1f} s  {rate:8,.0f}/s  delivered {now.delivered:,}  dead-lettered {now.dead_lettered:,}"
        f"  refused {now.refused:,}  failed {now.failed:,}  on the way {now.pending:,}  p99 {_ms(now.latency_ms.p99)}"
    )


def spool_line(now: "RunSummary", run: "Run") -> str:
    """What there is to say of the spool behind a line of progress; nothing while nothing is in it."""
    spool = run.spool()
    paths = [path for path in run.paths() if not path.is_direct]
    if spool is None or (spool.takes and not (now.spooled or paths)):
        return ""
    parts = [f"spooled {now.spooled:,}", *map(_path, paths)]
    if spool.oldest_s is not None:
        parts.insert(1, f"oldest {duration(spool.oldest_s)}")
    if not spool.takes:
        parts.append("the spool takes nothing")
    if waits := waiting_words(run):
        parts.append(waits)
    return "  " + "  ".join(parts)


def waiting_words(run: "Run") -> str:
    """What a run that has fed everything is waiting for, and how to end that; empty before."""
    left_s = run.finishing_for_s
    if left_s is None or run.spool() is None:
        return ""
    how = "Ctrl-C" if run.interrupted else "Ctrl-C twice"
    return f"waits {duration(left_s)} more for the spool to empty; {how} ends that"


def _path(path: "PathView") -> str:
    problem = "" if path.problem is None else f" ({path.problem})"
    return f"{path.topic} {path.state.replace('_', ' ')} {duration(path.for_s)}{problem}"


class Live:
    """Draws the run on a terminal, several times a second."""

    def __init__(self, run: "Run", console: "Console", where: str) -> None:
        from rich.live import Live as RichLive

        self._run = run
        self._where = where
        self._recent: list[tuple[float, int]] = []
        self._live = RichLive(
            console=console, get_renderable=self._draw, refresh_per_second=_FRAMES_PER_S, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _draw(self) -> "RenderableType":
        now = self._run.summary()
        self._recent = [*self._recent[-_RATE_WINDOW:], (now.elapsed_s, now.accepted - now.taken_over)]
        (then_s, then), (now_s, accepted) = self._recent[0], self._recent[-1]
        rate = (accepted - then) / (now_s - then_s) if now_s > then_s else 0.0
        return picture(now, rate, self._run, self._where)


def picture(now: "RunSummary", rate: float, run: "Run", where: str) -> "RenderableType":
    """The live view at one moment: progress, stages, outcomes, latency, reasons."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    options, limit = run.options, run.service.parts.limiter.events_per_second
    source = "generate" if options.source == "generator" else "read"
    handed_in = now.received - now.taken_over
    checked = handed_in - now.refused
    stages = Text(" ▶ ", style="dim").join(
        [
            Text(f"{source} {handed_in:,}", "bold"),
            Text(f"check {checked:,}"),
            Text("pace" if limit is None else f"pace {limit:,.0f}/s"),
            Text(f"publish {now.pending + now.in_flight:,} on the way"),
            Text(f"safe {now.accepted - now.taken_over:,}", "bold green"),
        ]
    )
    rows = Table.grid(padding=(0, 3))
    rows.add_row("rate", f"[bold]{rate:,.0f}[/] events/s", "delivered", f"[green]{now.delivered:,}[/]")
    rows.add_row("latency p50", _ms(now.latency_ms.p50), "dead-lettered", f"[yellow]{now.dead_lettered:,}[/]")
    rows.add_row("latency p95", _ms(now.latency_ms.p95), "refused", f"{now.refused:,}")
    rows.add_row("latency p99", _ms(now.latency_ms.p99), "failed", f"[red]{now.failed:,}[/]" if now.failed else "0")
    parts: list[RenderableType] = [stages, Text(""), rows]
    if options.count:
        parts[1:1] = [ProgressBar(total=options.count, completed=min(handed_in, options.count), width=60)]
    reasons = now.dead_letters_by_reason | now.refused_by_reason | now.failed_by_reason
    if reasons:
        parts.append(Text("reasons  " + "  ".join(f"{name} {count:,}" for name, count in reasons.items()), "dim"))
    parts += _spool_rows(now, run)
    return Panel(Group(*parts), title=f"postroom → {where}", subtitle=f"{now.elapsed_s:,.1f} s", width=100)


def _spool_rows(now: "RunSummary", run: "Run") -> "list[RenderableType]":
    """The spool in the live view: what waits and since when, how full it is, the paths that are not direct."""
    from rich.table import Table
    from rich.text import Text

    spool = run.spool()
    if spool is None:
        return []
    waits = f"[bold yellow]{now.spooled:,}[/]" if now.spooled else "0"
    more = [f"oldest {duration(spool.oldest_s)}"] if spool.oldest_s is not None else []
    more += [f"{now.taken_over:,} taken over"] if now.taken_over else []
    rows = Table.grid(padding=(0, 3))
    rows.add_row("spooled", waits, "  ".join(more))
    full = f"{size(spool.used_bytes)} of {size(spool.limit_bytes)}"
    state = "" if spool.takes else f"[red]takes nothing{'' if spool.refusing_for_s is None else ': the disk'}[/]"
    rows.add_row("spool", full, state)
    parts: list[RenderableType] = [Text(""), rows]
    parts += [Text(_path(path), "yellow") for path in run.paths() if not path.is_direct]
    if waiting := waiting_words(run):
        parts.append(Text(waiting, "bold"))
    return parts


def tell_summary(console: "Console", now: "RunSummary") -> None:
    """Print what became of every event, how fast, and whether the books balance."""
    from rich.table import Table

    table = Table(title="What became of every event", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_row("received", f"{now.received:,}", "")
    if now.taken_over:
        table.add_row("  of these taken over", f"{now.taken_over:,}", "left in the spool by earlier processes")
    table.add_row("  delivered", f"[green]{now.delivered:,}[/]", "acknowledged by Kafka")
    table.add_row("  dead-lettered", f"[yellow]{now.dead_lettered:,}[/]", _reasons(now.dead_letters_by_reason))
    if now.spooled:
        table.add_row("  spooled", f"[yellow]{now.spooled:,}[/]", "safe on this disk, to be sent")
    if now.quarantined:
        told = "unreadable on the disk, kept in the quarantine of the spool"
        table.add_row("  quarantined", f"[red]{now.quarantined:,}[/]", told)
    table.add_row("  refused", f"{now.refused:,}", _reasons(now.refused_by_reason))
    table.add_row("  failed", f"[red]{now.failed:,}[/]" if now.failed else "0", _reasons(now.failed_by_reason))
    console.print(table)
    latency = now.latency_ms
    console.print(
        f"{now.elapsed_s:,.1f} s, {now.events_per_s:,.0f} events/s; from hand-in to safe: "
        f"p50 {_ms(latency.p50)}, p95 {_ms(latency.p95)}, p99 {_ms(latency.p99)}"
    )
    if now.unaccounted or now.pending:
        lost = now.unaccounted + now.pending
        console.print(f"[bold red]The books do not balance: {lost:,} events are unaccounted for.[/]")
    else:
        equation = f"{now.received:,} = {now.accepted:,} accepted + {now.refused:,} refused + {now.failed:,} failed"
        console.print(f"[bold green]The books balance:[/] {equation}.")


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"

"""A Markdown page as one HTML file that needs nothing else: no script, no style or picture from elsewhere."""

from __future__ import annotations

import functools
import html
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ border: 1px solid #d5dae1; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
th:empty {{ display: none; }}
code {{ background: #f2f4f7; padding: .1rem .25rem; overflow-wrap: anywhere; }}
pre {{ background: #f2f4f7; padding: .75rem; overflow-x: auto; }}
pre code {{ padding: 0; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #14181f; color: #dce2ea; }}
  th, td {{ border-color: #3a4350; }}
  code, pre {{ background: #222934; }}
  a {{ color: #8ab4ff; }}
}}
</style>
</head>
<body>
{top}{body}</body>
</html>
"""


def html_page(title: str, markdown: str, *, index: str = "") -> str:
    """The page. HTML inside the Markdown is shown, not obeyed. `index` is the page that it leads back to."""
    top = f'<nav><a href="{html.escape(index)}">All events</a></nav>\n' if index else ""
    return _PAGE.format(title=html.escape(title), top=top, body=_renderer().render(markdown))


@functools.cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")

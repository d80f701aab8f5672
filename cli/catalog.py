"""`meshwright catalog`: what is in the catalog."""

from typing import Annotated

import typer

from meshwright.cli.arguments import OverlayFiles


def catalog_command(
    kind: Annotated[str, typer.Argument(help="devices, clusters, models or stacks; all of them where left out.")] = "",
    name: Annotated[str, typer.Argument(help="Show this entry as it is written, with its sources.")] = "",
    *,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List devices, clusters, models and software stacks, or show one of them."""
    from meshwright.catalog.names import match_name
    from meshwright.catalog.overlay_file import read_overlay
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.entries import KINDS, entry_document, entry_text, kind_document, render_kind

    overlays = [read_overlay(path) for path in overlay or ()]
    kinds = [match_name(kind, KINDS, kind="kind of entry")] if kind else list(KINDS)
    if name and json:
        print_json(entry_document(kinds[0], name, overlays))
    elif name:
        typer.echo(entry_text(kinds[0], name, overlays), nl=False)
    elif json:
        print_json({each: kind_document(each) for each in kinds})
    else:
        for each in kinds:
            render_kind(output_console(), each)

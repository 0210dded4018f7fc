"""Pages from Jinja templates, which packages keep in their folder `templates`."""

from __future__ import annotations

from adaptok.utils.extras import require


def render(package: str, template: str, **values: object) -> str:
    """Render a template of an importable package, such as "report.html.j2". Values are escaped in templates of HTML.

    Raises:
        ImportError: Jinja is not installed.
    """
    require("jinja2", extra="eval", purpose="writing a page")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown_row"] = lambda cells: " | ".join(cell.replace("|", "\\|") for cell in cells)
    return environment.get_template(template).render(values)

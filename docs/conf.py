"""Configuration of the documentation site, which `make docs` builds from the Markdown pages of this folder."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

from docutils.nodes import Element, TextElement
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

import adaptok

project = "adaptok"
author = "The adaptok authors"
copyright = f"2025, {author}"
version = release = adaptok.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_build", "extensions"]
default_role = "code"
smartquotes = False  # they would turn the two hyphens of a flag into a dash
html_theme = "furo"
html_title = "adaptok"
html_copy_source = False
html_show_sphinx = False

# Links between pages and to headings are checked, and the anchors of headings are those of GitHub.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

nitpicky = True  # every type and exception in a docstring must exist; see resolve_reference
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True


def setup(app: Sphinx) -> None:
    """Register the hooks of this file."""
    # GitHub draws diagrams of Mermaid. Here they are text, because drawing them would need scripts of another server.
    app.add_lexer("mermaid", TextLexer)
    app.connect("missing-reference", resolve_reference)
    app.connect("build-finished", check_resources)


def resolve_reference(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: TextElement) -> Element | None:
    """Link a public name under the name that it is imported by, and leave other existing names without a link."""
    if node["refdomain"] != "py":
        return None
    target, domain = node["reftarget"], env.get_domain("py")
    name = target.rpartition(".")[2]
    if name in adaptok.__all__ and not target.startswith("adaptok." + name):
        kind = node["reftype"]
        return domain.resolve_xref(env, node["refdoc"], app.builder, kind, f"adaptok.{name}", node, text)
    return text if exists(re.sub(r"^np\.", "numpy.", target)) else None


def exists(name: str) -> bool:
    """Return whether a name is one of Python's, of a package with its module, or of a module of adaptok."""
    module, _, attribute = name.rpartition(".")
    if not module:
        modules = [value for key, value in sys.modules.items() if key.partition(".")[0] in ("adaptok", "builtins")]
        return any(hasattr(each, attribute) for each in modules)
    try:
        return hasattr(import_module(module), attribute)
    except ImportError:
        return False


def check_resources(app: Sphinx, error: Exception | None) -> None:
    """Raise an error if a page or a style sheet loads anything from another server. Links to read on are allowed."""
    tags = re.compile(r"<(?:script|link|img|iframe|video|source)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]*)")
    styles = re.compile(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]*)")
    for suffix, pattern in ((".html", tags), (".css", styles)):
        for path in [] if error else sorted(Path(app.outdir).rglob(f"*{suffix}")):
            if found := pattern.search(path.read_text(encoding="utf-8")):
                raise ExtensionError(f"{path.name} loads {found[1]}; put the file into the site")

"""What MkDocs asks of this project while it builds the site: displayed mathematics, and the page that lies outside docs/.

A block of code marked `math`, which GitHub shows as mathematics too, becomes MathML, which every browser draws by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = {"contributing.md": "CONTRIBUTING.md"}
"""Pages of the site whose text stands at the top of the repository."""


def mathml(source: str, *args: Any, **kwargs: Any) -> str:
    """Displayed mathematics in LaTeX as MathML."""
    return f'<div class="math">{convert(source, display="block")}</div>'


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have blocks marked `math` drawn."""
    fence = {"name": "math", "class": "math", "format": mathml}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    root = Path(config.config_file_path).parent
    for page, name in OUTSIDE.items():
        text = (root / name).read_text(encoding="utf8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to pages outside docs/, as they are on GitHub, to where these are on the site."""
    for name, source in OUTSIDE.items():
        markdown = markdown.replace(f"](../{source}", f"]({name}")
    return markdown

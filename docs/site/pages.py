"""A hook of MkDocs: pages whose text is not in `docs`, links to files, formulas."""

import re
from pathlib import Path
from posixpath import dirname
from posixpath import normpath
from posixpath import relpath

from mkdocs.structure.files import File

from docs.site import tutorials
from docs.site.formulas import to_html

ROOT = Path(__file__).parents[2]
TEXTS = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "SECURITY.md": "security.md",
}
EXAMPLES = {
    path.relative_to(ROOT).as_posix(): f"examples/{path.name}.md"
    for path in sorted(ROOT.glob("examples/*.*"))
}
TUTORIALS = {
    path.relative_to(ROOT).as_posix(): f"tutorials/{path.stem}.md"
    for path in tutorials.PATHS
}
PAGES = TEXTS | EXAMPLES | TUTORIALS
SOURCES = {page: source for source, page in PAGES.items()}
LANGUAGES = {".py": "python", ".toml": "toml"}
FORMULA = re.compile(r"^```formula\n(.*?)```$", re.M | re.S)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files, config):
    for source, page in TEXTS.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=text))
    for source, page in EXAMPLES.items():
        files.append(File.generated(config, page, content=_listing(ROOT / source)))
    for source in TUTORIALS:
        path = ROOT / source
        for name, content in tutorials.make_files(path.stem, path.read_text()).items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def _listing(path):
    code = path.read_text()
    return f"# {path.name}\n\n````{LANGUAGES[path.suffix]}\n{code}````\n"


def on_page_markdown(markdown, page, files, **_):
    uri = page.file.src_uri
    source = SOURCES.get(uri, f"docs/{uri}")
    if source in EXAMPLES:
        return markdown

    def rewrite(link):
        """Makes a link between files one between pages, or the file's path."""
        target = normpath(f"{dirname(source)}/{link['target']}").lstrip("/")
        if not (ROOT / target).exists():
            return link[0]
        uri_of_target = PAGES.get(target, target.removeprefix("docs/"))
        file = files.get_file_from_path(uri_of_target)
        if file is None or file.inclusion.is_excluded():
            return _as_path(link["text"], target)
        to = relpath(uri_of_target, dirname(uri) or ".")
        return f"[{link['text']}]({to}{link['anchor'] or ''})"

    markdown = FORMULA.sub(lambda formula: to_html(formula[1]), markdown)
    return LINK.sub(rewrite, markdown)


def _as_path(text, path):
    named = text.strip("`") in (path, path.rpartition("/")[2])
    return f"`{path}`" if named else f"{text} (`{path}`)"

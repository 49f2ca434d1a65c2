"""What the pages name exists: links and their anchors, files, commands."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import command_table
from jobs.settings import Settings
from prectr.core.config import setting_docs

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("cluster/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
    )
)
FOLDERS = ("platform", "models", "jobs", "serve_apps", "cluster", "tests", "docs", "examples", "requirements", ".ci")
MADE_UP = re.compile(r"NAME|[*<>{}]|\.\.\.")
"""In the name of a file that a reader is to write, or of several files."""


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_code_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    made = set()
    for heading in re.findall(r"^#+ (.+)$", without_code_blocks(text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        made.add(anchor if anchor not in found else f"{anchor}-{found[anchor]}")
        found[anchor] = found.get(anchor, 0) + 1
    return made


@cache
def tracked() -> tuple[str, ...]:
    """Files of the repository, those that are not committed yet too."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return tuple(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())
    skipped = {".venv", ".git", "__pycache__"}
    return tuple(
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
    )


@cache
def commands() -> dict[str, set[str]]:
    """Name of a command or group -> the commands of the group; read from the table in `jobs/cli.py`."""
    tree = ast.parse((ROOT / "jobs" / "cli.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMMANDS"
    )
    assert isinstance(table, ast.Dict)
    found: dict[str, set[str]] = {}
    for key in table.keys:
        first, _, second = str(ast.literal_eval(key)).partition(" ")  # type: ignore[arg-type]
        found.setdefault(first, set()).update({second} - {""})
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_to_a_page_and_an_anchor_that_exist(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(text_of(page))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists():
            broken.append(link)
        elif anchor and anchor not in anchors(target.resolve().relative_to(ROOT)):
            broken.append(f"{link} (there are: {sorted(anchors(target.resolve().relative_to(ROOT)))})")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_in_backticks_exists(page: Path) -> None:
    missing = []
    for code in re.findall(r"`([^`\n]+)`", without_code_blocks(text_of(page))):
        for word in re.split(r"[\s:=,(]", code):
            path = word.rstrip("/.;)")
            if not path.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
                continue
            exists = list(ROOT.glob(path)) if "*" in word else (ROOT / path).exists() or MADE_UP.search(word)
            if not exists:
                missing.append(word)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_file_names_without_a_folder_are_unique_names_of_the_repository(page: Path) -> None:
    """`fold.py beside it`: a bare name of a Python file or a test must be a file somewhere."""
    names = {Path(name).name for name in tracked()}
    said = re.findall(r"`(?:[\w./]*/)?(\w+\.py)`", without_code_blocks(text_of(page)))
    assert [name for name in said if name not in names and not MADE_UP.search(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # names removed commands
        return
    unknown = []
    for first, second in re.findall(r"(?:^|[`\s(])prectr ([a-z][a-z-]+)(?: ([a-z][a-z-]*)\b)?", _code_of(page)):
        if first not in commands() or (commands()[first] and second and second not in commands()[first]):
            unknown.append(f"prectr {first} {second}".strip())
    assert unknown == []


def _code_of(page: Path) -> str:
    """What a page shows as code: blocks, indented blocks and backticks."""
    text = text_of(page)
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    rest = without_code_blocks(text)
    return "\n".join([*fenced, *re.findall(r"^    .+$", rest, re.MULTILINE), *re.findall(r"`[^`\n]+`", rest)])


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_benchmark_and_make_target_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    missing = []
    for target in re.findall(r"(?:^|`)make ([a-z][\w-]+)", _code_of(page), re.MULTILINE):
        if MADE_UP.search(target):
            continue
        bench = re.fullmatch(r"bench-(.+)", target)
        if bench:
            if not (ROOT / "tests" / "benchmarks" / f"{bench[1].replace('-', '_')}.py").is_file():
                missing.append(target)
        elif not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            missing.append(target)
    assert missing == []


def test_no_file_names_pages_that_are_not_in_the_repository() -> None:
    """Readers have only this repository."""
    names = ("MODEL" + ".md", "DESIGN" + ".md", "RAY" + ".md", "HOUSE" + ".md", "STYLE" + ".md", "../" + "shared")
    found = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, IsADirectoryError):
            continue
        found += [f"{name}: {page}" for page in names if page in text]
    assert found == []


def test_the_map_names_every_page_and_every_command() -> None:
    text = text_of(Path("docs/index.md"))
    pages = {page for page in PAGES if page.parts[0] == "docs" and page.name != "index.md"} | {
        Path("docs/results/index.md")
    }
    linked = {Path("docs") / link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)}
    results = text_of(Path("docs/results/index.md"))
    linked |= {Path("docs/results") / link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", results)}
    assert sorted(map(str, pages - linked)) == []
    assert sorted(name for name in commands() if f"`prectr {name}" not in text) == []


def test_the_readme_is_short() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= 150


@cache
def options_of(name: str) -> set[str]:
    found: Any = command_table()
    for word in name.split():
        found = found.command_of(word)
    return {option for parameter in getattr(found, "params", ()) for option in parameter.opts} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_option_of_a_command_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return
    unknown = []
    joined = re.sub(r"\\\n\s*", " ", _code_of(page))
    for line in re.findall(r"(?:^|[`\s(])prectr ([a-z][^\n`|<;#]*)", joined):
        words = line.split()
        name = " ".join(words[:2]) if commands().get(words[0], set()) & set(words[1:2]) else words[0]
        if name == "submit":  # its own options come first, then those of a command
            continue
        known = options_of(name)
        options = {word.partition("=")[0].rstrip(".,)]") for word in words if word.startswith(("--", "[--"))}
        unknown += [f"prectr {name} {option}" for option in options if option.lstrip("[") not in known]
    assert unknown == []


@cache
def setting_names() -> frozenset[str]:
    return frozenset(entry.name for entry in setting_docs(Settings()))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_setting_exists(page: Path) -> None:
    names = setting_names()
    groups = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
    sections = {name.partition(".")[0] for name in names}
    said = re.findall(r"(?:^|[`\s])([a-z_]+(?:\.[a-z_0-9]+)+)(?=[=:`,\s]|$)", _code_of(page), re.MULTILINE)
    wrong = [
        name
        for name in said
        if name.partition(".")[0] in sections
        and name not in names | groups
        and not re.search(r"\.(ya?ml|json|jsonl|py|md|csv|parquet|html|score|tell)$", name)
    ]
    assert wrong == []

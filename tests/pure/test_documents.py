"""What the documents say is there: tests, files, clauses, checks and phases that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedchain.audit.report import CHECKS
from fedchain.protocol.phase import Phase

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "contracts").glob("*.md"),
    *(ROOT / "devnet").glob("*.md"),
]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CLAUSE = re.compile(r"\b([PTSKM]\d(?:\.\d)?)\b")
DEFINED = set(re.findall(r"^- \*\*([PTSKM]\d(?:\.\d)?)\*\*", PROTOCOL, re.MULTILINE)) | set(
    re.findall(r"^#+ .*\((P\d)\)", PROTOCOL, re.MULTILINE)
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sources() -> list[Path]:
    return [*(ROOT / "fedchain").rglob("*.py"), *(ROOT / "contracts").rglob("*.sol"), *(ROOT / "tests").rglob("*.py")]


@pytest.mark.parametrize(("document", "many"), [("threat-model.md", 50), ("operate.md", 15)])
def test_every_test_that_a_document_names_exists(document: str, many: int) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    written = {name for path in (ROOT / "tests").rglob("test_*.py") for name in _tests_in(path)}
    assert len(named) > many
    assert named <= written, sorted(named - written)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), f"{name_of(document)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor_of(heading) for heading in headings}, f"{name_of(document)} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    there = [
        f"/{name_of(path)}"
        for path in [*sources(), *DOCUMENTS, *(ROOT / "docs").glob("*.py"), *(ROOT / "bench").glob("*.py")]
    ]
    for file in re.findall(r"`([\w./-]+\.(?:py|sol|md))`", text):
        assert any(path.endswith(f"/{file}") for path in there) or file == "task.py", f"{name_of(document)}: {file}"


def test_every_clause_that_code_or_a_document_refers_to_is_in_the_protocol() -> None:
    dotted = re.compile(r"\b(P\d\.\d)\b")
    for path in [*sources(), *DOCUMENTS]:
        unknown = set(dotted.findall(path.read_text(encoding="utf-8"))) - DEFINED
        assert not unknown, f"{name_of(path)} refers to {sorted(unknown)}"
    threats = set(CLAUSE.findall((ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")))
    assert threats <= DEFINED, sorted(threats - DEFINED)


def test_the_protocol_lists_every_phase_in_the_order_of_phase_of() -> None:
    table = PROTOCOL.partition("| phase | when |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| ([A-Z]\w+) \|", table, re.MULTILINE)
    code = (ROOT / "fedchain" / "protocol" / "phase.py").read_text(encoding="utf-8").partition("def phase_of")[2]
    returned = [name.capitalize() for name in re.findall(r"return Phase\.(\w+)", code)]
    assert listed == returned
    assert {name.upper() for name in listed} == {phase.name for phase in Phase}


def test_the_protocol_lists_every_check_of_the_audit_by_number_and_name() -> None:
    listed = {int(number): name for number, name in re.findall(r"^\| (\d+) \| (\w+):", PROTOCOL, re.MULTILINE)}
    assert listed == {number: name for number, (name, _) in CHECKS.items()}


def test_the_layout_in_the_readme_is_the_repository() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    layout = readme.partition("## Layout")[2].partition("```\n")[2].partition("```")[0]
    folders = re.findall(r"^(\S+)/ ", layout, re.MULTILINE)
    assert all((ROOT / folder).is_dir() for folder in folders), folders
    packages = {f"fedchain/{path.parent.name}" for path in (ROOT / "fedchain").glob("*/__init__.py")}
    assert packages <= set(folders), packages - set(folders)


def test_no_document_names_a_path_of_somebodys_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users)/", document.read_text(encoding="utf-8")), document


def _tests_in(path: Path) -> list[str]:
    return re.findall(r"^\s*def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)


def _anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")

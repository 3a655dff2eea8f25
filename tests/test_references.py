"""docs/references.md: every paper once, and every citation resolves to it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = r"(?:van den )?[A-Z][a-zA-Z]+(?:-[A-Z][a-z]+)?"
# "Burda et al. (2015)", "Kingma & Welling 2014", "He et al. 2016b", "Wood 1994"
CITATION = re.compile(rf"\b({NAME}(?: et al\.| & {NAME})?),? \(?((?:19|20)\d\d[a-z]?)\b")
ENTRY = re.compile(rf"^- \*\*({NAME}(?: et al\.| & {NAME})? (?:19|20)\d\d[a-z]?)\.\*\* (.+\.) (\S+)$", re.MULTILINE)
LINK = re.compile(
    r"\[arXiv:(\d{4}\.\d{4,5})\]\(https://arxiv\.org/abs/\1\)|\[doi:(10\.\d{4,}/\S+)\]\(https://doi\.org/\2\)"
    r"|<(https?://\S+)>"
)


def cited() -> dict[str, str]:
    """Every citation in src/, conf/ and docs/, with a file that has it."""
    files = [
        path
        for folder, kind in (("src", "*.py"), ("conf", "*.yaml"), ("docs", "*.md"))
        for path in sorted((ROOT / folder).rglob(kind))
        if path.name != "references.md"
    ]
    found = {}
    for path in [*files, ROOT / "README.md"]:
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text())  # a citation may go on in the next line
        for name, year in CITATION.findall(text):
            found[f"{name} {year}"] = str(path.relative_to(ROOT))
    return found


def entries() -> list[tuple[str, str, str]]:
    return ENTRY.findall((ROOT / "docs" / "references.md").read_text())


def test_every_citation_is_among_the_references_and_every_reference_is_cited() -> None:
    known = {name for name, _, _ in entries()}
    citations = cited()

    assert len(citations) > 60
    assert {name: file for name, file in citations.items() if name not in known} == {}
    assert known - set(citations) == set()


def test_every_paper_is_there_once_with_its_title_and_a_link_that_says_its_id() -> None:
    lines = [line for line in (ROOT / "docs" / "references.md").read_text().splitlines() if line.startswith("- ")]
    found = entries()

    assert len(found) == len(lines)
    assert [name for name, _, _ in found] == sorted((name for name, _, _ in found), key=str.lower)
    for number in range(3):  # by the words that cite it, by its title, by its link
        assert len({entry[number] for entry in found}) == len(found)
    assert [link for _, _, link in found if not LINK.fullmatch(link)] == []

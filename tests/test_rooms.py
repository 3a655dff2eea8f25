"""The rooms of the package: a file imports only from rooms below its own, and no imports go in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import vaelab

PACKAGE = Path(vaelab.__file__).parent
ROOMS = [  # from the lowest up; a file at the top of the package, such as errors.py, lies below all
    *["performance", "models", "losses", "data", "metrics", "figures", "training"],
    *["config", "runs", "looking", "sharing", "sweeps", "report", "cli"],
]


def modules() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, *, at_once: bool) -> Iterator[str]:
    """The modules of ours that a file imports, but for what only a type checker does.

    Args:
        path: of the file.
        at_once: only what is imported with it, not inside of functions.
    """
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if at_once and isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("vaelab."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vaelab":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else str(node.module)


def room_of(module: str) -> int:
    """The height of a module's room."""
    name = module.split(".")[1] if "." in module else module
    return ROOMS.index(name) if name in ROOMS else -1


def test_every_folder_of_the_package_is_a_room() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)


def test_a_file_imports_only_from_its_own_room_and_those_below() -> None:
    upwards = {
        (str(path.relative_to(PACKAGE)), imported.split(".")[1])
        for module, path in modules().items()
        for imported in imports(path, at_once=False)
        if module != "vaelab.__main__" and room_of(imported) > room_of(module)
    }
    assert upwards == set()


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: set(imports(path, at_once=True)) - {module} for module, path in modules().items()}
    TopologicalSorter(graph).prepare()  # raises CycleError

"""Make docs/ledger.md, the published numbers beside ours, from run folders.

python scripts/ledger.py outputs/ledger   # read what `vaelab ledger` has trained there into docs/ledger/*.json
python scripts/ledger.py                  # only write the page again
"""

import argparse
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vaelab.config.experiment import Paper
from vaelab.files import replacing
from vaelab.runs.folder import RunFolder
from vaelab.sweeps.folder import SweepFolder
from vaelab.sweeps.ledger import paper_of, result_of, rows

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "ledger"
HEAD = """# Ledger

<!-- made by scripts/ledger.py from run folders; the words on papers are those of conf/experiment/papers -->

Published numbers, and what the experiment of that name reaches here on the test split. Ours is the mean +- the standard
deviation over n seeds; the difference, ours - the paper's, is also in units of that standard deviation. NLL and -ELBO
are in nats an image, lower is better. Time is that of training one seed, in minutes of the clock beside other work. A
row whose value is not reached stays, with what is different and what was tried.

```bash
vaelab ledger burda_2015_vae seed=1,2,3     # trains what is missing, evaluates, prints the row
vaelab train experiment=papers/burda_2015_vae trainer.max_epochs=300   # or with another budget
```

A row for which the protocol cannot be the paper's says so: the static binarization of MNIST is not at hand, so no row
claims it.
"""
OURS = ("experiment=", "hydra.", "hydra/launcher=", "seed=", "data.root=")  # say which job, where and by whom


def read_row(name: str, folder: SweepFolder) -> dict[str, Any]:
    """Return what a row's run folders say: the result of each seed, and what it was trained with."""
    metric = paper_of(name).metric
    done = [job for job in folder.jobs if job.state == "done" and result_of(job.run, metric) is not None]
    own = {text for job in done for text in job.overrides if not text.startswith(OURS)}
    runs = [_run(job.run, metric) for job in sorted(done, key=lambda job: int(job.run.config.seed))]
    return {"metric": metric, "overrides": sorted(own), "runs": runs}


def _run(run: RunFolder, metric: str) -> dict[str, Any]:
    made_of = run.manifest
    assert made_of is not None
    git, hardware, at = made_of.git, made_of.hardware, run.status.at
    seconds = datetime.fromisoformat(at["done"]) - datetime.fromisoformat(at["running"])
    return {
        "seed": int(run.config.seed),
        "value": result_of(run, metric),
        "seconds": None if "interrupted" in at else round(seconds.total_seconds()),  # else of its last part
        "threads": hardware["threads"],
        "processor": ", ".join(hardware["gpus"]) or hardware["model"],
        "commit": "" if git is None else git.commit[:12] + ("+" if git.diff else ""),
    }


def page() -> str:
    """The page: docs/ledger/*.json and the words of conf/experiment/papers."""
    found = {name: _results(name) for name in rows()}
    table = [
        "| row | metric | paper | ours | n | difference | in sd | minutes | threads, processor |",
        "|" + "---|" * 9,
    ]
    table += [_line(name, paper_of(name), found[name]) for name in rows()]
    sections = [_section(name, paper_of(name), found[name]) for name in rows()]
    return "\n".join([HEAD, *table, "", *sections])


def _results(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    return content if content.get("runs") else {"overrides": [], "runs": []}


def _line(name: str, paper: Paper, found: dict[str, Any]) -> str:
    values = [run["value"] for run in found["runs"]]
    published = "" if paper.value is None else f"{paper.value:g}"
    cells = [f"[{name}](#{name})", f"`{paper.metric}`", published]
    if not values:
        return f"| {' | '.join([*cells, 'not run yet', *[''] * 5])} |"
    apart = None if paper.value is None else mean(values) - paper.value
    scaled = "" if apart is None or len(values) < 2 or not stdev(values) else f"{apart / stdev(values):+.1f}"
    times = [run["seconds"] / 60 for run in found["runs"] if run["seconds"] is not None]
    where = _each(f"{run['threads']}, {run['processor']}" for run in found["runs"])
    difference = "" if apart is None else f"{apart:+.{_decimals(values)}f}"
    time = f"{mean(times):.2g}" if times and mean(times) < 10 else f"{mean(times):.0f}" if times else ""
    return f"| {' | '.join([*cells, spread(values), str(len(values)), difference, scaled, time, where])} |"


def _section(name: str, paper: Paper, found: dict[str, Any]) -> str:
    seeds = ",".join(str(run["seed"]) for run in found["runs"]) or "1,2,3"
    command = f"vaelab ledger {shlex.join([name, f'seed={seeds}', *found['overrides']])}"
    commits = _each(f"`{run['commit']}`" for run in found["runs"])
    lines = [f"- {paper.source}: {paper.row}.", f"- The paper's protocol: {paper.protocol}."]
    lines += [f"- Here: {paper.here}."]
    lines += [f"- Tried: {paper.tried}."] if paper.tried is not None else []
    lines += [f"- `{command}`" + (f", at commit {commits}." if commits else ": not run yet.")]
    return "\n".join([f"## {name}", "", *lines, ""])


def spread(values: Sequence[float]) -> str:
    """A mean and, of several values, their standard deviation, both as exact as it makes sense.

    >>> spread([105.85, 105.61, 105.52]), spread([0.0045312])
    ('105.66 +- 0.17', '0.0045312')
    """
    if len(values) < 2 or not stdev(values):
        return f"{mean(values):.5g}"
    digits = _decimals(values)
    return f"{mean(values):.{digits}f} +- {stdev(values):.{digits}f}"


def _decimals(values: Sequence[float]) -> int:
    """Decimals that show two digits of the standard deviation or, of one value, five of it."""
    size = stdev(values) if len(values) > 1 and stdev(values) else abs(mean(values)) / 1000 or 1.0
    return max(0, 1 - math.floor(math.log10(size)))


def _each(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(words))


def main() -> None:
    """Read run folders, if any are named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="the folder of the rows' sweeps, such as outputs/ledger")
    folder = parser.parse_args().folder
    for name in rows() if folder is not None else ():
        if SweepFolder.is_one(folder / name) and (row := read_row(name, SweepFolder.open(folder / name)))["runs"]:
            RESULTS.mkdir(exist_ok=True)
            _write(RESULTS / f"{name}.json", json.dumps(row, indent=2) + "\n")
    _write(DOCS / "ledger.md", page())


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()

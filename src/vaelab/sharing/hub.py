"""`vaelab push` and `vaelab pull`: models in repositories of the Hugging Face Hub.

What is read back are named files of known kinds, opened as a run folder from elsewhere is: nothing in them runs code.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from vaelab.errors import RunError, UserError
from vaelab.looking.load import opened
from vaelab.runs.documents import MAX_BYTES, signed
from vaelab.runs.folder import WEIGHTS, RunFolder
from vaelab.runs.places import TAKEN, renamed, unmade
from vaelab.sharing.card import card
from vaelab.sharing.export import weights_file, without_places

if TYPE_CHECKING:
    from vaelab.runs.run import Run

DOCUMENTS = ("config.yaml", "data.json", "metrics.json")
NEEDED = ("config.yaml", "data.json", WEIGHTS)
FIGURES = ("reconstructions.png", "samples.png")


class Pushed(NamedTuple):
    """The address of a repository, and the files that are in the commit."""

    address: str
    files: list[str]


def push(run: "Run | str | Path", repo: str, *, private: bool = False, trust: Sequence[str] = ()) -> Pushed:
    """Put a run's weights, config, metrics, figures and a card made of them into a repository, as one commit.

    Paths of this machine are left out. The token is that of HF_TOKEN or `hf auth login`.

    Args:
        run: the run, its folder or a checkpoint.
        repo: user/name; it is made where there is none.
        private: make it a private one.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no token, the Hub refuses, or a package is missing.
    """
    hub = _library()
    trained = opened(run, trust=trust)
    metrics = trained.folder.metrics
    figures = [name for name in FIGURES if (trained.folder.figures / name).is_file()]
    contents = {
        "README.md": card(trained, repo, metrics=metrics, figures=figures).encode(),
        "config.yaml": signed(OmegaConf.to_yaml(without_places(trained.folder.config))).encode(),
        "data.json": json.dumps(trained.experiment.data.form.to_json(), indent=2).encode(),
        "metrics.json": (trained.folder.path / "metrics.json").read_bytes() if metrics else b"{}",
        WEIGHTS: weights_file(trained, trust),
        **{name: (trained.folder.figures / name).read_bytes() for name in figures},
    }
    if hub.get_token() is None:
        raise RunError("there is no token for the Hugging Face Hub: `hf auth login`, or HF_TOKEN in the environment")
    with _answers(hub, repo):
        api = hub.HfApi(library_name="vaelab")
        made = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(made.repo_id, operations, commit_message=f"{trained.experiment.name}, step {trained.step}")
    return Pushed(str(made), list(contents))


def pull(repo: str, *, output: Path | None = None, revision: str | None = None, trust: Sequence[str] = ()) -> RunFolder:
    """Fetch a model that was pushed into a new folder, which `vaelab.load` and the commands take as a run that is done.

    Args:
        repo: user/name.
        output: the folder; by default outputs/runs/NAME.
        revision: a branch, tag or commit.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no such repository, it is no model of vaelab, or the folder is in the way.
    """
    hub = _library()
    wanted = Path(output) if output is not None else Path("outputs", "runs", repo.split("/")[-1])
    if wanted.exists() or wanted.is_symlink():
        raise RunError(f"{wanted} {TAKEN}: --output names another folder")
    with tempfile.TemporaryDirectory() as fetched:
        with _answers(hub, repo):
            api = hub.HfApi(library_name="vaelab")
            about = api.model_info(repo, revision=revision, files_metadata=True)
            sizes = {file.rfilename: file.size for file in about.siblings or ()}
            if missing := [name for name in NEEDED if name not in sizes]:
                raise RunError(f"{repo} is no model of vaelab: it has no {missing[0]}")
            if large := [name for name in DOCUMENTS if (sizes.get(name) or 0) > MAX_BYTES]:
                raise RunError(f"{repo} is no model of vaelab: its {large[0]} is larger than {MAX_BYTES >> 20} MB")
            for name in {*NEEDED, *DOCUMENTS} & sizes.keys():
                api.hf_hub_download(repo, name, revision=about.sha, local_dir=fetched)
        return _as_run(Path(fetched), wanted, repo, trust)


def _as_run(fetched: Path, wanted: Path, repo: str, trust: Sequence[str]) -> RunFolder:
    """The files as a run folder, opened before it is there."""
    try:
        wanted.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{wanted.name}.", dir=wanted.absolute().parent) as beside:
            folder = Path(beside, "run")
            folder.mkdir()
            for name in {*NEEDED, *DOCUMENTS}:
                if (fetched / name).is_file():
                    shutil.copyfile(fetched / name, folder / name)
            run = RunFolder.open(folder)
            try:
                opened(folder, trust=trust)
                _ = run.metrics
            except UserError as error:
                raise RunError(str(error).replace(str(folder), repo)) from error
            run.update_status("done")
            return RunFolder(renamed(folder, wanted, TAKEN, exact=True))
    except OSError as error:
        raise unmade(wanted, error) from error


@contextmanager
def _answers(hub: Any, repo: str) -> Iterator[None]:
    """Say in one line what the Hub, or the way there, does not allow."""
    errors = hub.errors
    try:
        yield
    except UserError:
        raise
    except errors.HFValidationError as error:
        raise RunError(f"{repo} is no name of a repository: user/name, such as me/digits") from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise RunError(
            f"there is no repository {repo} on {hub.constants.ENDPOINT} that you may see: where it is private, "
            "`hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RunError(f"{repo} has no such revision") from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        why = "the token is not accepted" if code == 401 else "the token may not do this" if code == 403 else str(error)
        raise RunError(f"{repo}: {hub.constants.ENDPOINT} answers {code}: {' '.join(why.split())[:200]}") from error
    except Exception as error:  # of the libraries below it, of many kinds
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        why = " ".join(str(first).split())[:200] or type(first).__name__
        raise RunError(f"{repo}: {hub.constants.ENDPOINT} cannot be reached: {why}") from error


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import safetensors  # noqa: F401
    except ImportError as error:
        raise RunError('push and pull need the packages of vaelab[hub]: pip install "vaelab[hub]"') from error
    return huggingface_hub

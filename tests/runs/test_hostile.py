"""Run folders, configs and checkpoints made to do harm: each is refused in words, runs no code, changes no other."""

import io
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import vaelab
from processes import command
from vaelab.cli.main import main
from vaelab.runs.priors import fit
from vaelab.training.services import wandb_address, without_settings_here

CANARY = "THE CODE RAN"
SMALL = ["data=digits", "trainer=debug", "callbacks.progress_bar=null", "latent_dim=2", "encoder.hidden=[8]"]


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of our own, done."""
    return vaelab.train(vaelab.compose(SMALL), folder=tmp_path_factory.mktemp("honest") / "run").folder


@pytest.fixture
def victim(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, still to be resumed, in a folder with a secret and a canary's place beside it."""
    shutil.copytree(honest, tmp_path / "run")
    (tmp_path / "run" / "status.json").write_text('{"state": "interrupted"}')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("a: secret that is not to be read or changed")
    (tmp_path / "elsewhere" / "events.out.tfevents.1.mine").write_text("not to be cut or removed")
    (tmp_path / "elsewhere" / ".last.ckpt.123").write_text("not to be removed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv("VAELAB_TEST_SECRET", "a secret of the environment")
    return tmp_path / "run"


def outside(folder: Path) -> dict[str, str]:
    """Everything around a run folder, and what it holds."""
    found = sorted(path for path in folder.parent.rglob("*") if folder not in path.parents)
    return {str(path): path.read_text() if path.is_file() else "" for path in found}


def refused(command: list[str], victim: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says, given that it ends with 2, in errors alone, and has changed nothing but the folder."""
    before = outside(victim)
    with pytest.raises(SystemExit) as end:
        main(command)
    printed = capsys.readouterr()
    assert end.value.code == 2, printed.err
    said = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert said
    assert "Traceback" not in printed.err
    assert "a secret" not in printed.err + printed.out
    assert outside(victim) == before
    assert not Path(CANARY).exists()
    return "\n".join(said)


def change(config: dict[str, object]) -> Callable[[Path], None]:
    """Set dotted keys of a run folder's config."""

    def harm(run: Path) -> None:
        content = OmegaConf.load(run / "config.yaml")
        for key, value in config.items():
            OmegaConf.update(content, key, value, force_add=True)
        (run / "config.yaml").write_text(OmegaConf.to_yaml(content).replace("seed: '@'", f"seed: {'9' * 400}"))

    return harm


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return harm


def link(name: str, to: str) -> Callable[[Path], None]:
    """A link in the run folder, to the folder `elsewhere` or a file in it."""

    def harm(run: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(run.parent / "elsewhere" / to)

    return harm


def gadget(target: str, **arguments: object) -> dict[str, object]:
    return {"_target_": target} | arguments


SHELL = f"touch '{CANARY}'"
LEAKY = ["${oc.env:VAELAB_TEST_SECRET}", "${oc.decode:'${oc.env:VAELAB_TEST_SECRET}'}", "${hydra:runtime.cwd}"]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
NOT_SHIPPED, NOT_THERE = "not a part that vaelab ships", "not a part that fits there"

CONFIGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shell as a part": (change({"encoder": gadget("os.system", command=SHELL)}), NOT_SHIPPED),
    "a process as a part": (change({"encoder": gadget("subprocess.Popen", args=SHELL, shell=True)}), NOT_SHIPPED),
    "a file to write": (
        change({"prior": gadget("pathlib.Path.write_text", self=gadget("pathlib.Path"), data="x")}),
        NOT_SHIPPED,
    ),
    "a file to open": (change({"decoder": gadget("builtins.open", file=CANARY, mode="w")}), NOT_SHIPPED),
    "an evaluation": (change({"loss": gadget("builtins.eval", source="1")}), NOT_SHIPPED),
    "a partial": (change({"objective": gadget("functools.partial", func="os.system")}), NOT_SHIPPED),
    "Hydra's call": (change({"objective": gadget("hydra.utils.call", config=gadget("os.system"))}), NOT_SHIPPED),
    "Hydra's instantiate": (change({"optimizer": gadget("hydra.utils.instantiate")}), NOT_SHIPPED),
    "an unpickling": (change({"data": gadget("torch.load", f="x", weights_only=False)}), NOT_SHIPPED),
    "an import": (change({"trainer": gadget("importlib.import_module", name="antigravity")}), NOT_SHIPPED),
    "a module whose import alone runs code": (change({"encoder": gadget("intruder.Encoder")}), NOT_SHIPPED),
    "a name that starts like an allowed one": (change({"encoder": gadget("vaelab.networks_.MLP")}), NOT_SHIPPED),
    "a longer allowed name": (change({"encoder": gadget("vaelab.models.networks.MLPEncoder.x")}), NOT_SHIPPED),
    "something else of ours": (change({"encoder": gadget("vaelab.runs.run.train_into")}), NOT_SHIPPED),
    "what one of our modules imports": (
        change({"encoder": gadget("vaelab.training.lightning.os.system")}),
        NOT_SHIPPED,
    ),
    "a target that is no name": (change({"encoder": gadget(["os.system"])}), NOT_SHIPPED),  # type: ignore[arg-type]
    "a nested gadget": (change({"objective.kl_weight": gadget("os.system", command=SHELL)}), NOT_SHIPPED),
    "a gadget two deep": (
        change({"callbacks.x": gadget("vaelab.training.lightning.checkpoints", monitor=gadget("os.system"))}),
        NOT_SHIPPED,
    ),
    "a gadget in a list": (change({"encoder.hidden": [gadget("os.system", command=SHELL)]}), "integer"),
    "a gadget among the callbacks": (change({"callbacks.x": gadget("os.system", command=SHELL)}), NOT_SHIPPED),
    "a gadget among the loggers": (change({"logger.x": gadget("os.system", command=SHELL)}), NOT_SHIPPED),
    "a stock callback": (
        change({"callbacks.x": gadget("pytorch_lightning.callbacks.ModelCheckpoint", dirpath="elsewhere")}),
        "--trust pytorch_lightning.callbacks.ModelCheckpoint",
    ),
    "a stock logger": (
        change({"logger.x": gadget("pytorch_lightning.loggers.CSVLogger", save_dir="elsewhere")}),
        "--trust pytorch_lightning.loggers.CSVLogger",
    ),
    "a stock optimizer": (change({"optimizer": gadget("torch.optim.RAdam")}), "--trust torch.optim.RAdam"),
    "something else of Lightning's": (
        change({"callbacks.x": gadget("pytorch_lightning.callbacks.callback.Callback")}),
        NOT_SHIPPED,
    ),
    "what Lightning's callbacks import": (
        change({"callbacks.x": gadget("pytorch_lightning.callbacks.os.system")}),
        NOT_SHIPPED,
    ),
    "a stock callback as a logger": (
        change({"logger.x": gadget("pytorch_lightning.callbacks.Timer")}),
        NOT_SHIPPED,
    ),
    "a part in the wrong place": (change({"encoder._target_": "vaelab.models.networks.MLPDecoder"}), NOT_THERE),
    "_partial_": (change({"encoder._partial_": True}), "has no _partial_"),
    "_args_": (change({"encoder._args_": ["x"]}), "has no _args_"),
    "_recursive_": (change({"encoder._recursive_": False}), "has no _recursive_"),
    "a callback of Hydra's": (change({"hydra.callbacks.x": gadget("os.system", command=SHELL)}), "has no hydra"),
    "a search path": (change({"hydra.searchpath": ["pkg://intruder"]}), "has no hydra"),
    "a name that is a path": (change({"name": "../../x"}), "folder's name"),
    "a name that is absolute": (change({"name": "/tmp/x"}), "folder's name"),
    "data from an address": (change({"data": gadget("vaelab.data.MNIST", root="http://x/y")}), "not an address"),
    "a folder as its config": (
        lambda run: ((run / "config.yaml").unlink(), (run / "config.yaml").mkdir())[0],
        "no config",
    ),
    "a binary config": (write("config.yaml", bytes(range(256))), "cannot be read"),
    "a huge config": (write("config.yaml", "a: " + "x" * (17 << 20)), "larger than 16 MB"),
    "an endless nesting": (write("config.yaml", "[" * 20_000), "cannot be read"),
    "a bomb of aliases": (write("config.yaml", BOMB), "alias"),
    "a YAML tag that calls": (
        write("config.yaml", f'a: !!python/object/apply:os.system ["{SHELL}"]'),
        "cannot be read",
    ),
    "a YAML tag that makes": (write("config.yaml", "a: !!python/object/new:os.system []"), "cannot be read"),
    **{f"the resolver {text}": (change({"name": text}), "has an interpolation") for text in LEAKY},
    "the resolver now": (change({"name": "${now:%Y}"}), "has an interpolation"),
    "a resolver in a key that is not used": (change({"x": "${oc.env:VAELAB_TEST_SECRET}"}), "has an interpolation"),
    "a config that is a link": (link("config.yaml", "secret"), "link"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_config_in_a_run_folder_is_refused(
    name: str, victim: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (victim.parent / "intruder.py").write_text(
        f"import pathlib\npathlib.Path({CANARY!r}).touch()\nclass Encoder: pass\n"
    )
    monkeypatch.syspath_prepend(victim.parent)
    harm, words = CONFIGS[name]
    harm(victim)
    assert words in refused(["resume", "run"], victim, capsys)
    for reader in (vaelab.load, vaelab.evaluate):
        if name.startswith("a stock") and "as a" not in name:
            reader(victim)  # makes none of it
            assert not any(Path("elsewhere").glob("*.ckpt"))
            continue
        with pytest.raises(vaelab.UserError):
            reader(victim)
    assert not Path(CANARY).exists()


class Shell:
    """Unpickling it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (SHELL,)


class Loader:
    """Unpickling it has torch unpickle more."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return torch.load, (io.BytesIO(pickle.dumps(Shell())), None, None), {"weights_only": False}  # type: ignore[return-value]


def checkpoint(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    """Both checkpoints, changed in place."""

    def harm(run: Path) -> None:
        for name in ("last.ckpt", "best.ckpt"):
            content = torch.load(run / "checkpoints" / name, weights_only=True)
            changed = change(content)
            torch.save(content if changed is None else changed, run / "checkpoints" / name)

    return harm


def replaced(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """Both checkpoints, written by somebody else."""

    def harm(run: Path) -> None:
        for name in ("last.ckpt", "best.ckpt"):
            write(run / "checkpoints" / name)

    return harm


def rezipped(edit: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    """Both checkpoints, each record edited."""

    def harm(run: Path) -> None:
        for name in ("last.ckpt", "best.ckpt"):
            path = run / "checkpoints" / name
            with zipfile.ZipFile(path) as archive:
                records = {entry: archive.read(entry) for entry in archive.namelist()}
            with zipfile.ZipFile(path, "w", compression) as archive:
                for entry, content in records.items():
                    archive.writestr(entry, edit(entry, content))

    return harm


def legacy_tar(path: Path) -> None:
    """The format of torch 0.1, with a command in its pickle."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Shell())
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def first_weight(content: dict) -> str:  # type: ignore[type-arg]
    return next(iter(content["state_dict"]))


def weight(make: Callable[[torch.Tensor], object]) -> Callable[[Path], None]:
    return checkpoint(lambda c: c["state_dict"].update({first_weight(c): make(c["state_dict"][first_weight(c)])}))


ASKS_FOR_A_SHELL = b"cos\nsystem\n(S'" + SHELL.replace("'", '"').encode() + b"'\ntR."
PAYLOAD = {"state_dict": Shell()}
UNFIT = "cannot be loaded", "damaged"

CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "a plain pickle": replaced(lambda path: path.write_bytes(pickle.dumps(PAYLOAD))),
    "an opcode that asks for a shell": replaced(lambda path: path.write_bytes(ASKS_FOR_A_SHELL)),
    "a payload in the zip's pickle": replaced(lambda path: torch.save(PAYLOAD, path)),
    "an opcode in the zip's pickle": rezipped(lambda n, c: ASKS_FOR_A_SHELL if n.endswith("data.pkl") else c),
    "a payload in the legacy format": replaced(
        lambda path: torch.save(PAYLOAD, path, _use_new_zipfile_serialization=False)
    ),
    "a payload in a tar": replaced(legacy_tar),
    "a payload among the weights": weight(lambda _: Shell()),
    "an exec": checkpoint(lambda c: c.update(x=_Call(exec, f"open({CANARY!r}, 'w')"))),
    "an import": checkpoint(lambda c: c.update(x=_Call(__import__, "intruder"))),
    "an unpickling": checkpoint(lambda c: c.update(x=_Call(torch.load, CANARY))),
    "a getattr": checkpoint(lambda c: c.update(x=_Call(getattr, Path, "touch"))),
    "compressed content": rezipped(lambda _, content: content, zipfile.ZIP_DEFLATED),
    "a zip bomb": rezipped(lambda n, c: bytes(1 << 28) if n.endswith("/data/0") else c, zipfile.ZIP_DEFLATED),
    "records that overlap": replaced(lambda path: overlapping(path)),
    "a tensor larger than the file": weight(lambda _: torch.zeros(1).expand(1 << 40)),
    "weights of another shape": weight(lambda w: w[..., :1].clone()),
    "weights of another type": weight(lambda w: w.long()),
    "complex weights": weight(lambda w: w.to(torch.complex64)),
    "NaN weights": weight(lambda w: w * float("nan")),
    "infinite weights": weight(lambda w: w + float("inf")),
    "a weight that is no tensor": weight(lambda _: [1.0]),
    "a weight too many": checkpoint(lambda c: c["state_dict"].update({"model.x": torch.ones(1)})),
    "a weight missing": checkpoint(lambda c: c["state_dict"].update({"x": c["state_dict"].pop(first_weight(c))})),
    "no weights": checkpoint(lambda c: c.__delitem__("state_dict")),
    "weights that are a list": checkpoint(lambda c: c.update(state_dict=[])),
    "no dict": checkpoint(lambda _: [1, 2]),
    "an empty file": replaced(lambda path: path.write_bytes(b"")),
    "half of it": replaced(lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    "a script": replaced(lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))),
}


class _Call:
    """Unpickling it makes a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def overlapping(path: Path) -> None:
    """A zip whose directory lists one record a thousand times."""
    content = bytes(1 << 16)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", content)
        first = archive.infolist()[0]
        for number in range(1, 1000):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            again.CRC, again.file_size, again.compress_size = first.CRC, len(content), len(content)
            again.header_offset = first.header_offset
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_hostile_checkpoint_is_refused(name: str, victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CHECKPOINTS[name](victim)
    message = refused(["resume", "run"], victim, capsys)
    assert any(words in message for words in UNFIT)
    assert ".ckpt" in message
    with pytest.raises(vaelab.RunError, match=r"best\.ckpt cannot be loaded"):
        vaelab.load(victim)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer_states", []),
        ("optimizer_states", "x"),
        (
            "optimizer_states",
            [{"state": {0: {"step": torch.zeros(()), "exp_avg": torch.zeros(3)}}, "param_groups": []}],
        ),
        ("lr_schedulers", 5),
        ("loops", {"fit_loop": 5}),
        ("callbacks", {"Checkpoints": 5}),
        ("events", 5),
        ("events", None),
        ("window", 5),
        ("window", None),
        ("pytorch-lightning_version", "x"),
        ("optimizer_states", None),
    ],
)
def test_a_checkpoint_whose_weights_fit_and_whose_rest_does_not_is_refused(
    key: str, value: object, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change({"trainer.max_epochs": 3, "trainer.max_steps": 6})(victim)
    checkpoint(lambda c: c.update({key: value}) if value is not None else c.__delitem__(key))(victim)
    assert "last.ckpt does not fit this run" in refused(["resume", "run"], victim, capsys)


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "checkpoints elsewhere": (link("checkpoints", ""), "link"),
    "a checkpoint elsewhere": (link("checkpoints/last.ckpt", "secret"), "link"),
    "figures elsewhere": (link("figures", ""), "link"),
    "events elsewhere": (link("tensorboard", ""), "link"),
    "an event file elsewhere": (link("tensorboard/events.out.tfevents.1.x", "events.out.tfevents.1.mine"), "link"),
    "a log elsewhere": (link("train.log", "secret"), "link"),
    "a status elsewhere": (link("status.json", "secret"), "link"),
    "a pipe for a checkpoint": (
        lambda run: ((run / "checkpoints/last.ckpt").unlink(), os.mkfifo(run / "checkpoints/last.ckpt"))[0],
        "not a regular file",
    ),
    "a status that is a list": (write("status.json", "[]"), "status.json"),
    "a status that is no JSON": (write("status.json", "{"), "status.json"),
    "a status of bytes": (write("status.json", bytes(range(256))), "status.json"),
    "a status without end": (write("status.json", "[" * 100_000), "status.json"),
    "a huge status": (write("status.json", " " * (17 << 20)), "status.json"),
    "a manifest of other kinds": (write("manifest.json", '{"packages": 5}'), "manifest.json"),
    "a manifest of strange commits": (write("manifest.json", '{"git": {"commit": 5}}'), "manifest.json"),
    "a server of its own": (
        change({"logger": {"mlflow": gadget("vaelab.training.lightning.mlflow", tracking_uri="http://127.0.0.1:9")}}),
        "--trust http://127.0.0.1:9",
    ),
    "somebody's W&B": (
        change({"logger": {"wandb": gadget("vaelab.training.lightning.wandb", project="x")}}),
        "logs to Weights & Biases at https://",
    ),
    "a folder for a log": (lambda run: ((run / "train.log").unlink(), (run / "train.log").mkdir())[0], "is a folder"),
    "a file for checkpoints": (
        lambda run: (shutil.rmtree(run / "checkpoints"), (run / "checkpoints").touch())[0],
        "is a file",
    ),
    "a name with escapes": (write("\x1b[2J", ""), "control characters"),
    "a seed of 400 digits": (change({"seed": "@"}), "seed"),
    "an enormous network": (change({"encoder.hidden": [1] * 5000}), "1024 items"),
    "a database elsewhere": (
        change({"logger": {"mlflow": gadget("vaelab.training.lightning.mlflow", tracking_uri="sqlite:////tmp/x.db")}}),
        "--trust sqlite:////tmp/x.db",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_is_not_resumed(name: str, victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = FOLDERS[name]
    harm(victim)
    assert words in refused(["resume", "run"], victim, capsys)


def in_the_prior(harm: Callable[[Path], object]) -> Callable[[Path], object]:
    """The same harm, done to a run's fitted prior."""
    return lambda run: harm(run / "priors" / "flow")


PRIORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "priors elsewhere": (link("priors", ""), "link"),
    "a prior elsewhere": (link("priors/flow", ""), "link"),
    "a prior that is a file": (
        lambda run: (shutil.rmtree(run / "priors/flow"), (run / "priors/flow").touch())[0],
        "prior",
    ),
    **{
        f"{name}, in the prior": (in_the_prior(harm), words)
        for name, (harm, words) in {**CONFIGS, **FOLDERS}.items()
        if name in ("a shell as a part", "an import", "a checkpoint elsewhere") or words == NOT_THERE
    },
    **{
        f"{name}, in the prior": (in_the_prior(CHECKPOINTS[name]), "best.ckpt cannot be loaded")
        for name in ("a payload in the zip's pickle", "NaN weights", "weights of another shape", "a weight missing")
    },
}


@pytest.fixture(scope="session")
def with_prior(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of our own with a prior that was fitted to it."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    shutil.copytree(honest, run)
    fit(run, ["prior=flow", "prior.hidden=[8]", "prior.transforms=2", "trainer=debug", "callbacks.progress_bar=null"])
    return run


@pytest.mark.parametrize("name", PRIORS)
def test_a_hostile_prior_is_refused(
    name: str, with_prior: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(victim)
    shutil.copytree(with_prior, victim)
    harm, words = PRIORS[name]
    harm(victim)
    for verb in (["evaluate", "run"], ["sample", "run", "-o", "elsewhere/a.png"]):
        assert words in refused([*verb, "--prior", "flow"], victim, capsys)


NOT_READ = "a stock callback", "a stock logger", "a stock optimizer", "a weight too many"  # by the fit of a prior


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", [name for name in (*CONFIGS, *CHECKPOINTS) if name not in NOT_READ])
def test_no_prior_is_fitted_to_a_hostile_run(
    name: str, honest: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(honest / "status.json", victim)
    harm = CONFIGS[name][0] if name in CONFIGS else CHECKPOINTS[name]
    harm(victim)
    refused(["fit", "run", "prior=flow", "trainer=debug"], victim, capsys)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/run", "s3://bucket/run", "file:///tmp/run"])
@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_an_address_is_no_run(address: str, verb: str, victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing is downloaded" in refused([verb, address], victim, capsys)


OVERRIDES = {
    "a callback of Hydra's": [f"+hydra.callbacks.x={{_target_:os.system,command:{CANARY}}}"],
    "a callback in a file": ["--config-dir", "mine", "model=evil"],
    "a sweep with a callback in a file": ["-m", "--config-dir", "mine", "model=evil", "seed=1,2"],
    "a log handler": ["+hydra.job_logging={handlers:{x:{'()':os.system}}}"],
    "Hydra's own logging": ["hydra/job_logging=default"],
    "variables of the environment": ["+hydra.job.env_set.PYTHONPATH=elsewhere"],
    "a package to search": ["hydra.searchpath=[pkg://intruder]"],
    "an address to search": ["hydra.searchpath=[http://127.0.0.1:9/x]"],
    "a gadget": ["encoder._target_=os.system"],
    "a new gadget": [f"+callbacks.x={{_target_:os.system,command:{CANARY}}}"],
    "a part replaced": ["++prior={_target_:builtins.open,file:x,mode:w}"],
    "a module in a file": ["--config-dir", "mine", "encoder=evil"],
    "a YAML tag in a file": ["--config-dir", "mine", "decoder=evil"],
    "a path for a name": ["name=../../x"],
    "trust in nothing": ["--trust", "", "encoder._target_=.os.system"],
    "trust in another": ["--trust", "intruder2", "encoder._target_=intruder.Encoder"],
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_hostile_overrides_and_files_of_config_are_refused(
    name: str, victim: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (victim.parent / "intruder.py").write_text(
        f"import pathlib\npathlib.Path({CANARY!r}).touch()\nclass Encoder: pass\n"
    )
    monkeypatch.syspath_prepend(victim.parent)
    evil = {
        "model": f"# @package _global_\nhydra: {{callbacks: {{x: {{_target_: os.system, command: {CANARY}}}}}}}\n",
        "encoder": "_target_: intruder.Encoder\n",
        "decoder": f'a: !!python/object/apply:os.system ["{SHELL}"]\n',
    }
    for group, content in evil.items():
        (victim.parent / "mine" / group).mkdir(parents=True)
        (victim.parent / "mine" / group / "evil.yaml").write_text(content)
    refused(["train", "data=digits", "trainer=debug", *OVERRIDES[name]], victim, capsys)


def test_settings_of_the_folder_one_stands_in_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of W&B, which would send its key to the server that they name."""
    import wandb

    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "none"))

    def server() -> str:
        settings = wandb.Settings()
        settings.update_from_system_settings()
        return str(settings.base_url)

    assert server() == "http://127.0.0.1:9"
    with without_settings_here():
        assert server() == wandb_address() == wandb.Settings().base_url
    monkeypatch.setenv("WANDB_BASE_URL", "https://mine.example.org/")
    assert wandb_address() == "https://mine.example.org"


def test_json_is_read_as_text(victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (victim / "status.json").write_text('{"state": "done"}')
    (victim / "metrics.json").write_text('{"test/loss": "${oc.env:VAELAB_TEST_SECRET}"}')
    with pytest.raises(vaelab.RunError, match=r"\$\{oc\.env:VAELAB_TEST_SECRET\}\" is not a number"):
        vaelab.resume(victim)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["resume", "reproduce", "evaluate", "reconstruct"])
def test_nothing_is_downloaded_to_where_a_run_folder_says(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = vaelab.train(vaelab.compose([*SMALL, "data=mnist_5k"]), folder=tmp_path / "run").folder
    content = OmegaConf.load(run / "config.yaml")
    content.data = gadget("vaelab.data.MNIST", root=str(tmp_path / "elsewhere" / "data"))
    OmegaConf.save(content, run / "config.yaml")
    if verb == "resume":
        (run / "status.json").write_text('{"state": "interrupted"}')
    monkeypatch.setattr(
        "torchvision.datasets.mnist.download_and_extract_archive", lambda *_, **__: Path(CANARY).touch()
    )
    monkeypatch.chdir(tmp_path)
    said = refused([verb, str(run)], run, capsys)
    assert f"data.root={tmp_path / 'elsewhere' / 'data'}) is not there, and nothing is downloaded" in said


def test_hydras_files_in_a_run_folder_are_not_looked_at(victim: Path) -> None:
    (victim / ".hydra").mkdir()
    evil = f"hydra:\n  callbacks:\n    x:\n      _target_: os.system\n      command: {SHELL}\n"
    for name in (".hydra/hydra.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml", "multirun.yaml"):
        (victim / name).write_text(evil)
    (victim / ".hydra" / "config.pickle").write_bytes(pickle.dumps(Shell()))
    before = outside(victim)
    vaelab.load(victim)
    assert vaelab.resume(victim).metrics["steps"] == 2
    assert outside(victim) == before


def test_only_the_trusted_package_is_imported(victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (victim.parent / "intruder.py").write_text(
        f"import pathlib\npathlib.Path({CANARY!r}).touch()\nfrom vaelab.models.networks import MLPEncoder as Encoder\n"
    )
    monkeypatch.syspath_prepend(victim.parent)
    change({"encoder._target_": "intruder.Encoder"})(victim)
    with pytest.raises(vaelab.ConfigError):
        vaelab.load(victim)
    assert not Path(CANARY).exists()
    vaelab.load(victim, trust=["intruder"])
    assert Path(CANARY).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [CONFIGS["a shell as a part"][0], CHECKPOINTS["a payload in the zip's pickle"], FOLDERS["events elsewhere"][0]],
)
def test_a_real_process_refuses_as_well(harm: Callable[[Path], None], victim: Path) -> None:
    harm(victim)
    before = outside(victim)
    result = command("evaluate", "run", cwd=Path.cwd())
    assert result.returncode == 2, result.stderr
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert outside(victim) == before


def test_the_payloads_would_run_where_they_were_let(victim: Path) -> None:
    CHECKPOINTS["a payload in the zip's pickle"](victim)
    torch.load(victim / "checkpoints" / "last.ckpt", weights_only=False)
    assert Path(CANARY).exists()


def test_the_corpus_is_no_smaller_than_it_was_meant_to_be() -> None:
    assert len(CONFIGS) + len(CHECKPOINTS) + len(FOLDERS) + len(OVERRIDES) + len(PRIORS) > 100

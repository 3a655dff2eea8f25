"""Fetch ONNX Runtime for the web from npm into the package, for the pages of `vaelab explore`.

    python scripts/vendor_onnxruntime_web.py 1.30.0

Of the npm package two files are kept: the script, as it is, and the WebAssembly, compressed by xz. They are checked
against the integrity that the registry states, and their SHA-256 is written down beside them.
"""

import argparse
import base64
import hashlib
import io
import json
import lzma
import tarfile
import urllib.request
from pathlib import Path

REGISTRY = "https://registry.npmjs.org/onnxruntime-web"
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
HERE = Path(__file__).parents[1] / "src" / "vaelab" / "sharing" / "onnxruntime_web"


def main() -> None:
    """Fetch, check and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version")
    version = parser.parse_args().version
    with urllib.request.urlopen(f"{REGISTRY}/{version}", timeout=60) as answer:
        dist = json.load(answer)["dist"]
    with urllib.request.urlopen(dist["tarball"], timeout=600) as answer:
        archive = answer.read()
    said = f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}"
    if said != dist["integrity"]:
        raise SystemExit(f"the archive is {said}, and the registry says {dist['integrity']}")
    sums = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for name in FILES:
            file = members.extractfile(f"package/dist/{name}")
            assert file is not None
            content = file.read()
            sums[name] = hashlib.sha256(content).hexdigest()
            if name.endswith(".wasm"):
                (HERE / f"{name}.xz").write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
            else:
                (HERE / name).write_bytes(content)
    about = {"package": "onnxruntime-web", "version": version, "license": "MIT", "integrity": said, "sha256": sums}
    (HERE / "about.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What every page that we write has: data that stay data, and a policy that runs our script alone."""

import base64
import json
from hashlib import sha256
from typing import Any


def embedded_json(content: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"

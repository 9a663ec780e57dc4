"""PNG from SVG, by rsvg-convert(1), which draws what browsers do."""

from __future__ import annotations

import shutil
import subprocess

from controller.errors import FleetError

_TOOL = "rsvg-convert"
_ZOOM = 2  # of the drawing's own pixels: sharp on paper and on dense screens
_SECONDS = 120.0


def to_png(svg: str) -> bytes:
    """The picture as PNG. Raises FleetError when the tool is not there, or refuses."""
    tool = shutil.which(_TOOL)
    if tool is None:
        raise FleetError(
            f"PNG is made by {_TOOL}, which is not there", where="-o png",
            remedy="apt-get install librsvg2-bin; or take -o svg, which every browser shows",
        )  # fmt: skip
    try:
        # Nothing but the picture itself is read: it names no file.
        done = subprocess.run(
            [tool, f"--zoom={_ZOOM}", "--unlimited"],
            input=svg.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        raise FleetError(f"{_TOOL} made no picture: {said or error}", where="-o png", remedy="take -o svg") from error
    return done.stdout

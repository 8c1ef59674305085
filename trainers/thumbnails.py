"""Images as text, small enough for a page."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

SIDE = 384  # pixels of the longer side, at most
QUALITY = 80


def data_uri(pixels: Tensor) -> str:
    """An image as a JPEG in a `data:` address, no larger than `SIDE`. (3, H, W) uint8, RGB."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small = max(image.size) <= SIDE // 2  # each of its pixels will be seen
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92 if small else QUALITY, subsampling=0 if small else 2, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

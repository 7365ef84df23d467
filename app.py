"""Entry point of the Space: `python app.py` serves http://127.0.0.1:7860; `FCN_MODELS` and `PORT` change that."""

import sys

from fcn_hf.errors import FCNError
from space.serving import address, launch
from space.ui import build
from space.uploads import own_folder

if __name__ == "__main__":
    try:
        own_folder(*address())
        page = build()
    except FCNError as error:
        sys.exit(f"error: {error}")
    launch(page)

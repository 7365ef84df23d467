"""The demo page: three strides of one network, side by side on one picture."""

import os

# Gradio reads this once, at its import: the page must start, and stay, without a call to the outside.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# oneDNN reads this once too: for how many layers and sizes it keeps a plan. A picture's layers, forward and backward,
# are to find theirs again, as making one can take as long as following it; those of ever other sizes must make room.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")

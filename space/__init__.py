"""The demo page: three strides of one network, side by side on one picture."""

import os

# Gradio reads this once, at its import: the page must start, and stay, without a call to the outside.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# oneDNN reads this once too. It would keep plans for the last 1024 layers and sizes: 1 GB after some dozen pictures.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8")

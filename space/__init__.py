"""The demo page: three strides of one network, side by side on one picture."""

import os

# Gradio reads this once, at its import: the page must start, and stay, without a call to the outside.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# oneDNN reads this once too: for how many layers and sizes it keeps a plan. Those of one picture, of all networks of a
# kind forward and backward, are about 400; making a plan takes as long as following it, and each takes about 50 kB.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")

"""One thread is faster for narrow nets, by far where the cores are busy."""

import cv2

cv2.setNumThreads(1)

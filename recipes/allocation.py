"""Keeps freed memory for the next step, on Linux."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER, _AHEAD = -1, 2**28


def reuse_memory():
    """Tells the C library not to give memory back between training steps.

    On a CPU a good part of a step of a small convolutional network is otherwise spent
    in the kernel, on pages that are given back and asked for again: `time` shows it as
    `sys`. Elsewhere than with glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_TRIM_THRESHOLD, _NEVER)
        set_option(_TOP_PAD, _AHEAD)
        set_option(_MMAP_MAX, 0)

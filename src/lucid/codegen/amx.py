"""Leave to use the tiles of Intel's AMX: 8 KB of registers, which Linux keeps for processes alone
that have asked (Documentation/arch/x86/xstate.rst)."""

from __future__ import annotations

import ctypes
import functools
import logging
import os

logger = logging.getLogger("lucid.kernels")

ARCH_PRCTL = 158
ARCH_REQ_XCOMP_PERM = 0x1023
XFEATURE_XTILEDATA = 18


@functools.cache
def tiles_granted() -> bool:
    """Whether the system lets this process use tiles. It is asked once; threads and forks inherit
    what it says. It refuses where a thread's alternate stack for signals is too small, and where
    the machine is one that a supervisor allows none."""
    refusal = _ask()
    if refusal:
        logger.info("AMX is not used: the system refuses its tiles (%s)", refusal)
    return not refusal


def _ask() -> str:
    """The system call: nothing, or why it was refused."""
    library = ctypes.CDLL(None, use_errno=True)
    words = (ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    if library.syscall(*map(ctypes.c_long, words)) == 0:
        return ""
    return os.strerror(ctypes.get_errno())

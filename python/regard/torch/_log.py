"""Which kernel each call went to, logged on request.

    regard.torch.log_dispatch()          # from here on, one line a call, logger "regard.torch"
    regard.torch.log_dispatch(False)

A call that regard computes is logged at INFO with its problem and kernel, and at DEBUG with the whole of
`regard.explain`; a call that an installed regard leaves to torch is logged at INFO with the reason.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import regard

logger = logging.getLogger("regard.torch")
enabled = False


def log_dispatch(enable: bool = True) -> None:
    """Starts, or with False stops, logging where each call goes (logger "regard.torch").

    Works in eager and compiled code alike: lines come from the kernels. If nothing has configured logging, a handler
    that prints to stderr is added, so that the lines are seen.
    """
    global enabled
    enabled = enable
    if enable and not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
    if enable and not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)


def forward(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Logs a call of regard.attention, varlen_attention or with_kvcache that was made with these arguments."""
    _write(regard.explain(function, *args, **kwargs))


def backward(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Logs the backward of such a call."""
    problem = regard.explain(function, *args, **{**kwargs, "kernel": None}).problem
    _write(regard.explain(f"backward {problem.partition(' ')[2]}", kernel=kwargs.get("kernel"), device=str(args[0].device)))


def left_to_torch(reason: str) -> None:
    """Logs a call that an installed regard hands to torch."""
    if enabled:
        logger.info("scaled_dot_product_attention -> torch: %s", reason)


def _write(explanation: regard.Explanation) -> None:
    logger.info("%s -> %s", explanation.problem, explanation.chosen)
    logger.debug("%s", explanation.text)

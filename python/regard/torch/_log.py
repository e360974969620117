"""Which kernel each call went to, logged on request.

    regard.torch.log_dispatch()          # from here on, one line a call, logger "regard.torch"
    regard.torch.log_dispatch(False)

A call that regard computes is logged at INFO with its problem and kernel, and at DEBUG with the whole of
`regard.explain`; a call that an installed regard leaves to torch is logged at INFO with the reason.
"""
from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

import regard

from ._problem import problem_text

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


def forward(q: Tensor, k: Tensor, v: Tensor, packed: dict[str, Any] | None, call: dict[str, Any]) -> None:
    """Logs a forward call that regard computed."""
    _chosen(problem_text(q, k, v, call, packed), call)


def backward(q: Tensor, k: Tensor, v: Tensor, packed: dict[str, Any], call: dict[str, Any]) -> None:
    """Logs a backward call that regard computed."""
    _chosen(problem_text(q, k, v, call, packed, backward=True), call)


def left_to_torch(reason: str) -> None:
    """Logs a call that an installed regard hands to torch."""
    if enabled:
        logger.info("scaled_dot_product_attention -> torch: %s", reason)


def _chosen(problem: str, call: dict[str, Any]) -> None:
    explanation = regard.explain(problem, kernel=call.get("kernel"))
    logger.info("%s -> %s", problem, explanation.chosen)
    logger.debug("%s", explanation.text)

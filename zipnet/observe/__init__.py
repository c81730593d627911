"""What a node says about itself: logs, readiness, and metrics.

``zipnet.observe.metrics`` is imported by name only: it needs the ``node`` extra, the SDK does not.
"""

from zipnet.observe.health import FailedCondition, Finding, Health, Level
from zipnet.observe.log import configure_logging, get_logger

__all__ = ["FailedCondition", "Finding", "Health", "Level", "configure_logging", "get_logger"]

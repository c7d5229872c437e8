"""`make demo`: one task, three adapters and the base, compared on one page."""

from trimtab.demo.run import run_demo
from trimtab.demo.settings import DemoSettings

__all__ = ["DemoSettings", "run_demo"]

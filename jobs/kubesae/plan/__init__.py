"""Plan: does it fit, which engine, how long, how much, from configs alone. torch is loaded only to count a model."""

from kubesae.plan.assumptions import Assumptions, assumptions_of
from kubesae.plan.calibration import FILE, Calibration, load_calibration
from kubesae.plan.page import plan_page
from kubesae.plan.prices import Prices, load_prices
from kubesae.plan.report import Report
from kubesae.plan.run import plan_work, work_of
from kubesae.plan.table import table_lines
from kubesae.plan.work import HERE

__all__ = [
    "FILE",
    "HERE",
    "Assumptions",
    "Calibration",
    "Prices",
    "Report",
    "assumptions_of",
    "load_calibration",
    "load_prices",
    "plan_page",
    "plan_work",
    "table_lines",
    "work_of",
]

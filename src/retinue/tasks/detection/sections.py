"""What a report shows of a detector."""

from __future__ import annotations

from retinue.evaluation.detection import remark
from retinue.page.section import TaskSections

SECTIONS = TaskSections(remark=remark)

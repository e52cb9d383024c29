"""The probes: tasks that every model is asked beside those of the score. None is shipped.

A probe is never trained and enters neither score nor ranking: it shows where else a training has
changed what a model can do. It is a module of its own, a member of `Task` (with the kind of its
answers) and an entry here; suites, gains, reports and tracking follow.
"""

from __future__ import annotations

from tuning.tasks.items import Probe

PROBES: tuple[Probe, ...] = ()
"""One for each evaluated task that is not scored."""

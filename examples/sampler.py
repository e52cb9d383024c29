"""A sampler of one's own: every second proposal lies near the best point so far."""

import random


class NearBest:
    """Changes one parameter of the best point; a space names it ``sampler: sampler:NearBest``."""

    def __init__(self, explore=0.5):
        """Take the space's `sampler_arguments`."""
        self.explore = explore

    def propose(self, points, index, seed, seen):
        """Return a point: a value for each parameter that exists in it."""
        generator = random.Random(seed)
        drawn = points.from_units([generator.random() for _ in points.parameters])
        finished = [s for s in seen if s.objectives]
        if not finished or generator.random() < self.explore:
            return drawn
        best = dict(max(finished, key=lambda s: s.objectives[0]).point)
        name = generator.choice(sorted(set(best) & set(drawn)))
        near = {**best, name: drawn[name]}
        try:
            points.check(near)
        except ValueError:
            return drawn  # A condition would not be met any more.
        return near

"""The model behind recommendations: encodings, its posterior, and what a run is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tuning.analysis.evidence import Tried
from tuning.analysis.surrogate import (
    Encoding,
    Posterior,
    Surrogate,
    believed,
    knowledge_gradients,
    noise_p_value,
    pooled_noise,
)
from tuning.points import Parameter

RATE = Parameter(name="rate", key="k.rate", values=(1e-4, 3e-4, 1e-3, 3e-3))
SHARE = Parameter(name="share", key="k.share", values=(0.5, 0.7, 0.9))
RANK = Parameter(name="rank", key="k.rank", low=4, high=64, is_log=True, is_integer=True, step=1)
BAND = Parameter(name="band", key="k.band", values=("easy", "medium", "hard"))
FLAG = Parameter(name="flag", key="k.flag", values=(False, True))
MODULES = Parameter(name="modules", key="k.modules", values=(["q"], ["q", "v"]))


def tried(setting: dict[str, object], *objectives: float) -> Tried:
    return Tried(setting=setting, objectives=objectives, seeds=range(len(objectives)))


def encoded(parameter: Parameter, *values: object) -> list[list[float]]:
    settings = [{parameter.name: value} for value in values]
    return Encoding([parameter], settings)(settings).tolist()


def test_geometric_candidates_and_log_ranges_lie_on_a_log_scale() -> None:
    rates = [row[0] for row in encoded(RATE, 1e-4, 3e-4, 1e-3, 3e-3)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(1)
    assert rates[1] == pytest.approx(math.log(3) / math.log(30))
    assert encoded(RANK, 4, 16, 64) == [[0.0], [pytest.approx(0.5)], [pytest.approx(1.0)]]
    assert encoded(SHARE, 0.5, 0.7, 0.9) == [[0.0], [pytest.approx(0.5)], [pytest.approx(1.0)]]


def test_categories_are_one_apart_and_booleans_are_0_and_1() -> None:
    bands = np.array(encoded(BAND, "easy", "medium", "hard"))
    distances = [np.linalg.norm(bands[a] - bands[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert distances == pytest.approx([1, 1, 1])
    assert encoded(FLAG, False, True) == [[0.0], [1.0]]
    assert encoded(MODULES, ["q"], ["q", "v"]) == [[0.0], [1.0]]


def test_a_tried_value_outside_the_space_widens_the_scale() -> None:
    assert encoded(SHARE, 0.1, 0.5, 0.9) == [[0.0], [pytest.approx(0.5)], [pytest.approx(1.0)]]


def test_the_posterior_follows_the_data_and_is_surest_where_they_are() -> None:
    def surface(value: float) -> float:
        return -((math.log10(value) + 3) ** 2)

    space = [RANK, RATE]
    settings = [{"rank": 8, "rate": float(r)} for r in np.geomspace(1e-4, 3e-3, 8)]
    known = [tried(s, surface(float(s["rate"]))) for s in settings]
    between = [{"rank": 8, "rate": 7e-4}, {"rank": 64, "rate": 7e-4}]
    surrogate = Surrogate(Encoding(space, settings + between), known)
    posterior = surrogate.posterior([*settings, *between])
    assert posterior.mean_C[:8] == pytest.approx([t.mean for t in known], abs=0.05)
    assert posterior.mean_C[8] == pytest.approx(surface(7e-4), abs=0.1)
    spread = np.sqrt(np.diag(posterior.covariance_CC))
    assert spread[9] > spread[8]


def test_seeds_of_one_setting_say_what_is_noise() -> None:
    rng = np.random.default_rng(0)
    settings = [{"rate": r, "share": s} for r in RATE.values for s in SHARE.values]
    noisy = [tried(s, *(0.03 * rng.normal(size=5))) for s in settings]
    surrogate = Surrogate(Encoding([RATE, SHARE], settings), noisy)
    assert 0.02 < math.sqrt(surrogate.noise) < 0.04
    assert math.sqrt(pooled_noise(noisy) or 0) == pytest.approx(0.03, rel=0.3)


def test_pooled_noise_and_f_test_are_those_of_textbooks() -> None:
    known = [tried({}, 1.0, 3.0), tried({}, 5.0), tried({}, 2.0, 2.0, 5.0)]
    # Sums of squares 2 and 6 with 1 and 2 degrees of freedom.
    assert pooled_noise(known) == pytest.approx(8 / 3)
    expected = stats.f_oneway(*[t.objectives for t in known]).pvalue
    assert noise_p_value(known, pooled_noise(known)) == pytest.approx(expected)
    assert pooled_noise([tried({}, 1.0)]) is None
    assert noise_p_value([tried({}, 1.0), tried({}, 2.0)], None) is None


def test_a_knowledge_gradient_of_two_settings_is_the_closed_form() -> None:
    mean, covariance, noise = np.array([0.0, -0.5]), np.diag([0.0, 1.0]), 0.25
    gains = knowledge_gradients(Posterior(mean, covariance), noise)
    change = 1.0 / math.sqrt(1.25)
    z = 0.5 / change
    # Frazier, Powell and Dayanik 2009: s * f(-|d| / s), f(z) = z * Phi(z) + phi(z).
    assert gains[1] == pytest.approx(change * (stats.norm.pdf(z) - z * stats.norm.sf(z)), abs=0.01)
    assert gains[0] == 0


def test_a_run_is_worth_more_where_less_is_known_and_never_less_than_nothing() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        root = rng.normal(size=(12, 12))
        posterior = Posterior(rng.normal(size=12), root @ root.T)
        gains = knowledge_gradients(posterior, 1.0)
        assert (gains >= 0).all()
        best = int(gains.argmax())
        after = believed(posterior, best, 1.0)
        assert after.covariance_CC[best, best] < posterior.covariance_CC[best, best]
        assert np.linalg.eigvalsh(after.covariance_CC).min() > -1e-9
        assert (after.mean_C == posterior.mean_C).all()


def test_a_run_that_is_believed_leaves_what_one_that_was_made_leaves() -> None:
    covariance = np.array([[2.0, 1.0], [1.0, 3.0]])
    after = believed(Posterior(np.zeros(2), covariance), 0, 0.5)
    inverse = np.linalg.inv(covariance)
    inverse[0, 0] += 1 / 0.5
    assert after.covariance_CC == pytest.approx(np.linalg.inv(inverse))

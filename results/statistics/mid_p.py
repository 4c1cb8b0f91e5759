"""The mid-p value of a net gain under given probabilities, for fractional counts too."""

from __future__ import annotations

import math

from mapflow.results.statistics.estimates import Real


def restricted_loss(gained: Real, lost: Real, n: Real, difference: Real) -> float:
    """The most likely probability of a lost question if that of a gained one is `difference` more.

    difference: from 0 to 1. Source: Tango (1998), Statistics in Medicine 17:891-908, equation 26:
    the positive root of 2n·q² + b·q + c = 0.
    """
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    radical = math.sqrt(max(b * b - 8 * n * c, 0.0))
    return (-2 * c / (b + radical) if b + radical > 0 else 0.0) if b > 0 else (radical - b) / 4 / n


def mid_p_score(n: float, gain: float, loss: float, net: float) -> float:
    """The standard normal value whose upper tail is the mid-p value of `net` or more.

    `net` is gained − lost questions of `n`, with probabilities `gain` and `loss`. Adding a uniform
    variable of one step's width turns the tail into the mid-p value; its saddlepoint is found by
    Newton's method. Source: Barndorff-Nielsen (1986), Biometrika 73:307-322.
    """
    mean, spread = n * (gain - loss), n * (gain + loss - (gain - loss) ** 2) + 1 / 12
    low, high, u = -700.0, 700.0, max(-3.0, min(3.0, (net - mean) / spread))
    for _ in range(200):
        value, slope, curvature = _cumulants(u, n, gain, loss)
        low, high = (low, u) if slope > net else (u, high)
        step = u - (slope - net) / curvature
        step = step if low < step < high else (low + high) / 2
        if abs(step - u) <= 1e-13 * max(1.0, abs(u)):
            break
        u = step
    value, _, curvature = _cumulants(u, n, gain, loss)
    w = math.copysign(math.sqrt(max(2 * (u * net - value), 0.0)), u)
    if abs(w) < 1e-4:  # the formula's limit at the mean
        mean, both = gain - loss, gain + loss
        return w + n * (mean - 3 * mean * both + 2 * mean**3) / spread**1.5 / 6
    return w + math.log(u * math.sqrt(curvature) / w) / w


def _cumulants(u: float, n: float, gain: float, loss: float) -> tuple[float, float, float]:
    """The cumulant generating function of the smoothed net gain at `u`, and two derivatives."""
    a, sign = abs(u), math.copysign(1.0, u)
    towards, against = (gain, loss) if u >= 0 else (loss, gain)
    shrink = math.exp(-a)
    total = towards + max(1 - gain - loss, 0.0) * shrink + against * shrink**2
    up, down = towards / total, against * shrink**2 / total
    if a < 1e-2:
        smooth = (a * a / 24 - a**4 / 2880, a / 12 - a**3 / 720, 1 / 12 - a * a / 240)
    else:
        rest = -math.expm1(-a)
        smooth = (
            a / 2 + math.log(rest / a),
            (1 + shrink) / rest / 2 - 1 / a,
            1 / a**2 - shrink / rest**2,
        )
    return (
        n * (math.log(total) + a) + smooth[0],
        n * sign * (up - down) + sign * smooth[1],
        n * (up + down - (up - down) ** 2) + smooth[2],
    )

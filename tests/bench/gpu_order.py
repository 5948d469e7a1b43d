"""The steps of ``gpu.py`` in the order of their worth, and how long each may take.

Right numbers come first, then the goals, then what explains them. Together they may
take 800 seconds: a card is seldom lent for longer than a quarter of an hour.
"""

from tests.bench.gpu_bottleneck import bottleneck
from tests.bench.gpu_flows import commands, end, end_2, feed
from tests.bench.gpu_steps import (
    Step,
    arithmetic,
    compiled,
    flat,
    graphs,
    lanes,
    model,
    resampling,
    shortage,
    tests,
    versions,
)
from tests.bench.gpu_training import plain, resume, training

STEPS = (
    Step("versions", 15, versions, vital=True),
    Step("arithmetic", 30, arithmetic, vital=True),
    Step("lanes", 25, lanes, vital=True),
    Step("graphs", 30, graphs),
    Step("resampling", 40, resampling, vital=True),
    Step("shortage", 20, shortage),
    Step("flat", 25, flat),
    Step("tests", 60, tests),
    Step("resume", 20, resume),
    Step("commands", 35, commands),
    Step("end", 120, end),
    Step("end-2", 120, end_2),
    Step("plain", 45, plain),
    Step("bottleneck", 35, bottleneck),
    Step("training", 45, training),
    Step("model", 40, model),
    Step("feed", 60, feed),
    Step("compiled", 35, compiled),
)

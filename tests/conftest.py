"""How the property tests run: by no clock, and the same for everybody."""

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail, so nothing is timed; and a failure is the fault of what was changed, so the
# examples are the same every time. `--hypothesis-profile=default` looks for others.
settings.register_profile(
    "tapath", deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tapath")

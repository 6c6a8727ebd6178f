"""The mathematics of the diffusion: schedules, process, losses, samplers, clamps."""

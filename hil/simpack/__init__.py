"""Our own model pack `sim`: small networks that know artificial residents, and nobody else."""

"""LightningModules and what training alone needs."""

"""Programs in the forms of other systems: Intel's Lava (lava), lava-dl's netx (netx)."""

"""Engine directories: how they are built from checkpoints, checked, and opened."""

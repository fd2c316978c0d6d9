"""What `osora ckpt` does with weights and checkpoints outside of a run."""

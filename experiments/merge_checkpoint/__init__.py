"""From a checkpoint with experts to a plain dense one."""

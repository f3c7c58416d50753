"""Experts on wireless nodes: loss against energy, for SiftMoE and others."""

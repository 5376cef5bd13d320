"""What a pool is cleaned with on its own, without an experiment: one module for each command."""

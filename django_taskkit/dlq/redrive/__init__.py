"""Redrives: bulk requeues that are rows, so that they are paced, watched, stopped, and outlive who runs them."""

"""From the first state to the last: where a run starts, its steps, and whoever watches them."""

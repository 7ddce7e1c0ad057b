"""What happens beside the stream: simulated and foreign traffic, replays, training. Nothing online imports it."""
